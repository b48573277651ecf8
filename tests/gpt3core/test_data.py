"""Text to batches, against tiktoken's own hash, closed forms and a set's arithmetic."""

import base64
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3core import spec as specs
from gpt3core.data import corpus, shards, tokenizer
from gpt3core.data.loader import Loader
from gpt3core.data.sources import own
from gpt3core.data.stream import Stream
from gpt3core.errors import DiskFullError
from gpt3core.spec import DataSpec

# tiktoken_ext/openai_public.py demands this hash of r50k_base, GPT-2's vocabulary in tiktoken's format
R50K_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


def spec(path, **changes):
    fields = {"tokenizer": "gpt2:300", "validation_fraction": 0.1, **changes}
    return DataSpec(corpus=str(path), corpus_sha256=corpus.fingerprint(str(path)), **fields)


def test_the_vocabulary_is_gpt2s():
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in tokenizer.ranks(50_256).items())
    assert hashlib.sha256(b"".join(lines)).hexdigest() == R50K_SHA256
    assert tokenizer.load("gpt2").encode_ordinary("Hello world") == [15496, 995]


@pytest.mark.parametrize("name", ["gpt2:257", "gpt2:1024", "gpt2"])
def test_any_prefix_is_a_tokenizer_that_loses_nothing(name):
    encoding = tokenizer.load(name)
    text = "To be, or not to be: \u00e9\u4e2d\U0001f600\n\n  that is the question."
    assert encoding.decode(encoding.encode_ordinary(text)) == text
    assert encoding.n_vocab == tokenizer.vocab_size(name)
    assert max(encoding.encode_ordinary(text)) < encoding.eot_token


ODD = [
    *map(chr, range(128)),
    "\x85",
    "\xa0",
    "\u180e",
    "\u200b",
    "\u2028",
    "\u3000",
    "\ufeff",
    "\u0301",
    "\u0663",
    "\u4e2d",
]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(ODD), st.sampled_from([1, 1, 2, 15, 16, 17, 40])), max_size=8))
def test_a_long_run_of_spaces_is_cut_where_no_token_changes(letters):
    text = "".join(letter * count for letter, count in letters)
    encoding = tokenizer.load("gpt2")
    whole = tiktoken.Encoding.encode_ordinary(encoding, text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tokenizer, "LONGEST_RUN", 16)
        cut = tokenizer.parts(text)
        assert encoding.encode_ordinary(text) == whole
    assert "".join(cut) == text
    assert not any(re.search(r"[ \n\u3000]{17}\S", part) for part in cut)


@pytest.mark.parametrize("space", [" ", "\n", "\u2028"])
def test_a_run_of_a_million_spaces_is_tokenized(space):
    text = f"a{space * 1_000_000}b"
    plain = tokenizer.load("gpt2")
    *tokens, end = tokenizer.encoder("gpt2")([text]).tolist()
    assert tokens == plain.encode_ordinary(text)
    assert end == plain.eot_token
    assert plain.decode(tokens) == text


TEXTS = [
    "",
    " ",
    "end ",
    " begins",
    "it's\n",
    "\n\n",
    "<|endoftext|>",
    "a<|endoftext|",
    "|endoftext|>",
    f"{'x ' * 9}{' ' * 40}y",
]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8))
def test_texts_that_are_cut_at_once_have_the_tokens_of_each(texts):
    plain = tokenizer.load("gpt2")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tokenizer, "LONGEST_RUN", 16)
        together = tokenizer._joined(plain, texts).tolist()
    assert together == [token for text in texts for token in (*plain.encode_ordinary(text), plain.eot_token)]


@pytest.mark.parametrize("name", ["gpt3", "gpt2:256", "gpt2:60000", "gpt2:x"])
def test_other_vocabularies_are_refused(name):
    with pytest.raises(ValueError, match="allowed are gpt2 and gpt2:K"):
        tokenizer.vocab_size(name)


def tokens_of(streams):
    """All tokens of a corpus of one source and piece."""
    (stream,) = streams
    (piece,) = stream.pieces
    return piece


def loader_of(tokens, *, n_ctx=10, seed=1):
    return Loader([Stream(name="text", weight=1.0, pieces=(tokens,))], n_ctx=n_ctx, seed=seed)


def test_shards_are_cached_checked_and_disjoint(tales):
    made = shards.prepare(spec(tales))
    again = shards.prepare(spec(tales))
    assert made.folder == again.folder
    assert made.total("tokens")["train"] == made.train[0].tokens
    encoding = tokenizer.load("gpt2:300")
    train = encoding.decode(tokens_of(made.train).tolist()).split(tokenizer.END_OF_TEXT)
    assert made.validation_documents
    assert not {document["text"] for document in made.validation_documents} & set(train)
    assert len(train) - 1 + len(made.validation_documents) == 400
    raw = bytearray((made.folder / "text" / "train-00000.npy").read_bytes())
    raw[-1] ^= 1
    (made.folder / "text" / "train-00000.npy").write_bytes(raw)
    with pytest.raises(ValueError, match="is damaged"):
        shards.prepare(spec(tales))


def test_altered_text_is_not_the_specified_text(tales):
    wanted = spec(tales)
    tales.write_text(tales.read_text() + '{"text": "more"}\n')
    with pytest.raises(ValueError, match="was specified on"):
        shards.prepare(wanted)


def test_every_sequence_is_seen_once_an_epoch_and_batches_need_no_state():
    loader = loader_of(np.arange(1001), seed=1)
    first_epoch = np.concatenate([loader.batch(i, i + 4).tokens[:, 0] for i in range(0, 100, 4)])
    assert sorted(first_epoch) == list(range(0, 1000, 10))
    again = loader_of(np.arange(1001), seed=1)
    assert (loader.batch(28, 32).tokens == again.batch(28, 32).tokens).all()
    second_epoch = np.concatenate([loader.batch(i, i + 4).tokens[:, 0] for i in range(100, 200, 4)])
    assert sorted(second_epoch) == sorted(first_epoch)
    assert list(second_epoch) != list(first_epoch)
    assert (np.diff(loader.batch(12, 16).tokens) == 1).all()


def test_a_batch_says_which_targets_count():
    batch = loader_of(np.arange(1001), seed=1).batch(0, 4)
    assert (batch.tokens.shape, batch.tokens.dtype) == ((4, 11), np.int64)
    assert (batch.mask.shape, batch.mask.dtype) == ((4, 10), np.bool_)
    assert batch.mask.all(), "packed text: every target counts"


def test_documents_are_packed_to_full_contexts_each_ended_by_the_end_of_text(tales):
    """Brown et al. 2020, appendix B: no padding, no gap, and documents go on in the next context."""
    made, n_ctx = shards.prepare(spec(tales)), 64
    encoding = tokenizer.load("gpt2:300")
    end = encoding.eot_token
    loader, tokens = Loader(made.train, n_ctx=n_ctx, seed=0), tokens_of(made.train)
    (n_sequences,) = loader.n_sequences
    rows = loader.batch(0, n_sequences).tokens
    assert rows.shape == (n_sequences, n_ctx + 1)
    rows = {row.tobytes(): row for row in rows}
    whole = [tokens[i * n_ctx : (i + 1) * n_ctx + 1].astype(np.int64) for i in range(n_sequences)]
    assert {row.tobytes() for row in whole} == set(rows), (
        "one after another, the last token of each the next one's first"
    )
    stream = np.concatenate([row[:-1] for row in whole])
    texts = encoding.decode(stream.tolist()).split(tokenizer.END_OF_TEXT)
    held_out = {document["text"] for document in made.validation_documents}
    written = {json.loads(line)["text"] for line in tales.read_text().splitlines()} - held_out
    assert set(texts[:-1]) <= written
    assert (
        len(texts) - 1
        == (stream == end).sum()
        == made.total("documents")["train"] - (tokens[len(stream) :] == end).sum()
    )


def test_too_little_text_for_a_sequence_is_one_sentence():
    with pytest.raises(ValueError, match="text has 10 tokens, one sequence needs 11: give more text"):
        loader_of(np.arange(10), seed=0)


def test_words_and_documents_are_kept_for_evaluation(tales):
    made = shards.prepare(spec(tales))
    assert "river" in made.words
    assert {"text", "domain"} == set(made.validation_documents[0])
    assert {"tales"} == {document["domain"] for document in made.validation_documents}


# ---------------------------------------------------------------------------------------- one text, wherever it lies


def test_moved_renamed_and_split_text_has_the_same_shards(tales, tmp_path, monkeypatch):
    lines = tales.read_text().splitlines(keepends=True)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "z.jsonl").write_text("".join(lines[:100]))
    (tmp_path / "parts" / "a.jsonl").write_text("".join(lines[100:]))
    here, there = spec(tales), spec(tmp_path / "parts")
    assert here.corpus_sha256 == there.corpus_sha256
    first = shards.prepare(here)
    assert shards.prepare(there).folder == first.folder, "the cache is shared"
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "another cache"))
    assert shards.prepare(there).meta == first.meta


def test_long_texts_of_a_folder_may_come_in_any_order(tmp_path, monkeypatch):
    texts = ["\n".join(f"Line {n} of text {name}." for n in range(3000)) for name in "abc"]
    made = []
    for number, order in enumerate([(0, 1, 2), (2, 0, 1)]):
        folder = tmp_path / f"folder {number}"
        folder.mkdir()
        for place, which in enumerate(order):
            (folder / f"{place}.txt").write_text(texts[which])
        monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / f"cache {number}"))
        made.append(shards.prepare(spec(folder)))
    assert made[0].meta == made[1].meta


def test_domains_are_the_names_that_the_files_have_now(tales):
    before = shards.prepare(spec(tales))
    renamed = tales.rename(tales.with_name("stories.jsonl"))
    after = shards.prepare(spec(renamed))
    assert after.folder == before.folder
    assert {document["domain"] for document in after.validation_documents} == {"stories"}


def test_the_domains_of_held_out_text_take_one_reading_of_the_text_and_hold_no_other(tales, monkeypatch):
    os.utime(tales, (1e9, 1e9))
    made, read, found = shards.prepare(spec(tales)), [], []
    texts, domains = own.texts, own.domains
    monkeypatch.setattr(own, "texts", lambda path: read.append(path) or texts(path))
    monkeypatch.setattr(own, "domains", lambda *given: found.append(domains(*given)) or found[-1])
    held = {document["text"] for document in made.validation_documents}
    assert [set(each) for each in found] == [held]
    assert len(read) == 1


@pytest.mark.parametrize(
    "change", [{"tokenizer": "gpt2:301"}, {"validation_fraction": 0.2}, {"corpus_sha256": "0"}, {"pipeline_version": 9}]
)
def test_whatever_changes_the_shards_changes_their_folder(tales, change):
    assert shards.folder_of(replace(spec(tales), **change)) != shards.folder_of(spec(tales))


# ------------------------------------------------------------------------------------- killed, crowded, without room


def run_python(code, path):
    return subprocess.Popen([sys.executable, "-c", code, specs.to_json(spec(path))], stdout=subprocess.PIPE, text=True)


BUILD = """import os, signal, sys
from gpt3core import spec as specs
from gpt3core.data import shards
import json
spec = specs.from_dict(specs.DataSpec, json.loads(sys.argv[1]))
"""
KILLED = """synced = []
def sync(descriptor):
    synced.append(descriptor)
    if len(synced) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = sync
shards.prepare(spec)
"""


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_build_that_is_killed_leaves_no_half_cache(tales, after):
    killed = run_python(BUILD + KILLED.format(after=after), tales)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    folder = shards.folder_of(spec(tales))
    assert not folder.exists()
    assert shards.described(spec(tales)) is None
    assert shards.prepare(spec(tales)).train[0].tokens > 1000
    assert {p.name for p in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}


def test_two_processes_build_once(tales):
    counting = BUILD + (
        "build, built = shards._build, []\n"
        "shards._build = lambda *a: (built.append(1), build(*a))\n"
        "made = shards.prepare(spec)\n"
        "print(len(built), made.train[0].tokens)"
    )
    both = [run_python(counting, tales) for _ in range(2)]
    (built_a, tokens_a), (built_b, tokens_b) = (p.communicate(timeout=60)[0].split() for p in both)
    assert int(built_a) + int(built_b) == 1
    assert tokens_a == tokens_b


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tales):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    text = spec(tales)
    tokenizer.load(text.tokenizer)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(DiskFullError, match=r"no room to write .* set ISOFLOP_CACHE to another disk"):
            shards.prepare(text)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    folder = shards.folder_of(text)
    assert [p.name for p in folder.parent.iterdir()] == [f"{folder.name}.lock"]
    assert shards.prepare(text).train[0].tokens > 1000
