"""A corpus of several sources, from prepared folder to trained run: what is read, checked, mixed, measured, refused."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import random
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt3core.data import check, checked, corpus, facts, shards, tokenizer, writing
from gpt3core.data.stream import mapped
from gpt3core.errors import DiskFullError, UsageError
from gpt3core.evals import held_out
from gpt3core.spec import DataSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from tests.conftest import make_run, sentence
from tests.gpt3core.outcomes import outcome, run, stopped

SIZES = {"books": 160, "web": 240}  # documents
TOKENIZER = "gpt2:300"


def documents(name, count):
    """Sentences of one source, every tenth document held out."""
    rng = random.Random(name)
    for number in range(count):
        text = " ".join(sentence(rng) for _ in range(12))
        yield ("validation" if number % 10 == 0 else "train"), name, f"{name}: {text}"


def prepare(folder, sizes=SIZES, **how):
    made = {n: writing.write(documents(n, c), folder, source=n, tokenizer=TOKENIZER) for n, c in sizes.items()}
    writing.finish(folder, made, tokenizer=TOKENIZER, validation_fraction=0.1, **how)
    return folder


@pytest.fixture
def mixed(tmp_path):
    return prepare(tmp_path / "mixed", weights={"books": 0.7, "web": 0.3})


def spec(folder, **changes):
    named = {"corpus": str(folder), "corpus_sha256": corpus.fingerprint(str(folder)), "tokenizer": TOKENIZER}
    return DataSpec(**{**named, "validation_fraction": 0.1, **changes})


# ------------------------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("pieces", [1, 7, 160])
def test_documents_cut_in_pieces_give_the_same_files(tmp_path, monkeypatch, pieces):
    monkeypatch.setattr(writing, "SHARD_TOKENS", 5000)
    monkeypatch.setattr(writing, "BLOCK_TOKENS", 1000)
    monkeypatch.setattr(writing, "NOTED", {"train": 9000, "validation": 2000})  # bytes: neither all nor no document
    every = list(documents("books", 160))
    whole = writing.write(every, tmp_path / "whole", source="books", tokenizer=TOKENIZER)
    assert len(whole.shards["train"]) > 3
    assert 1 < len(list(files.read_lines(tmp_path / "whole" / "books" / "documents.jsonl"))) < 16
    encoding = tokenizer.load(TOKENIZER)

    def cut():
        for some in np.array_split(np.arange(len(every)), pieces):
            for side in ("train", "validation"):
                texts = [every[n][2] for n in some if every[n][0] == side]
                tokens = [token for text in texts for token in (*encoding.encode_ordinary(text), encoding.eot_token)]
                size = sum(len(text.encode()) for text in texts)
                array = np.array(tokens, writing.TOKEN)
                yield writing.Piece(side=side, domain="books", tokens=array, documents=len(texts), bytes=size)

    joined = writing.join(cut(), tmp_path / "joined", source="books", tokenizer=TOKENIZER)
    assert joined == whole  # the sha256 of every file among it


def test_what_is_written_is_tiktokens_tokens_whatever_the_size_of_a_file(tmp_path, monkeypatch):
    encoding = tokenizer.load(TOKENIZER)
    expected = {"train": [], "validation": []}
    for side, _, text in documents("web", 60):
        expected[side] += [*encoding.encode_ordinary(text), encoding.eot_token]
    for most, block in ((1 << 26, 1 << 22), (1000, 1 << 22), (1000, 300), (150, 150), (len(expected["train"]), 100)):
        monkeypatch.setattr(writing, "SHARD_TOKENS", most)
        monkeypatch.setattr(writing, "BLOCK_TOKENS", block)
        source = writing.write(documents("web", 60), tmp_path / str(most), source="web", tokenizer=TOKENIZER)
        for side, tokens in expected.items():
            pieces = [np.load(tmp_path / str(most) / path) for path in source.shards[side]]
            assert np.concatenate(pieces).tolist() == tokens
            assert source.tokens[side] == len(tokens)
            assert {len(piece) for piece in pieces[:-1]} <= {most}
            assert len(pieces) == -(-len(tokens) // most)
    held = files.read_lines(tmp_path / "150" / "web" / "documents.jsonl")
    assert [d["text"] for d in held] == [text for side, _, text in documents("web", 60) if side == "validation"]


def test_memory_is_neither_that_of_the_text_nor_of_a_file(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(writing, "BLOCK_TOKENS", 10_000)
    monkeypatch.setattr(writing, "BATCH", 10_000)
    peaks = []
    for count in (50, 400):
        tracemalloc.start()
        source = writing.write(documents("web", count), tmp_path / str(count), source="web", tokenizer=TOKENIZER)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(source.shards["train"]) == 1
    assert peaks[1] < 1.5 * peaks[0]


@contextlib.contextmanager
def descriptors(most):
    """A process that may have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_300_billion_tokens_can_be_mapped_with_the_usual_1024_descriptors(tmp_path):
    begin, paths = writing.header(writing.SHARD_TOKENS), []
    for number in range(math.ceil(300e9 / writing.SHARD_TOKENS)):
        paths.append(tmp_path / f"{number}.npy")
        with open(paths[-1], "wb") as file:  # sparse
            file.write(begin)
            file.truncate(len(begin) + 2 * writing.SHARD_TOKENS)
    with descriptors(1024):
        pieces = [mapped(path) for path in paths]
    assert sum(map(len, pieces)) >= 300e9


def test_more_files_than_a_process_may_open_are_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_TOKENS", 200)
    folder = prepare(tmp_path / "small", {"web": 240})
    named = spec(folder)
    made = shards.prepare(named)
    refused = pytest.raises(ValueError, match=r"npy cannot be opened, for this process may have \d+ files open: raise")
    with descriptors(len([*Path("/proc/self/fd").iterdir()]) + 8), refused:
        len(made.train)
    assert len(made.train[0].pieces) > 8


@pytest.mark.parametrize("name", ["", "../up", "a b", "a/b", "é", "x" * 65, "episodes"])
def test_a_source_must_be_a_files_name(tmp_path, name):
    with pytest.raises(ValueError, match="letters, digits, - and _ make its name"):
        writing.write([], tmp_path, source=name, tokenizer=TOKENIZER)


def test_a_faster_tokenizer_is_held_against_tiktoken(monkeypatch):
    pytest.importorskip("riptoken")
    tokenizer.encoder.cache_clear()
    fast, plain = tokenizer.encoder("gpt2"), tokenizer.load("gpt2")
    long = [f"a {letter * 499}" for letter in "-a0\n"] + ["-\x1c" * 300, "\u3000" * 167 + "b", f"a{' ' * 1_000_000}b"]
    texts = [*(text for _, _, text in documents("web", 30)), *long]
    each = [(*plain.encode_ordinary(text), plain.eot_token) for text in texts]
    assert fast(texts).tolist() == [token for tokens in each for token in tokens]


def test_a_tokenizer_that_errs_is_not_used(monkeypatch):
    """A stand-in for riptoken that loses the last token: found out before the first document."""
    import sys
    from types import ModuleType, SimpleNamespace

    broken = ModuleType("riptoken")
    plain = tokenizer.load(TOKENIZER)
    broken.CoreBPE = lambda *_: SimpleNamespace(encode_ordinary=lambda text: plain.encode_ordinary(text)[:-1])
    broken.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "riptoken", broken)
    tokenizer.encoder.cache_clear()
    with pytest.raises(ValueError, match="riptoken cut a document into other tokens of gpt2:300 than tiktoken"):
        tokenizer.encoder(TOKENIZER)
    tokenizer.encoder.cache_clear()


# ----------------------------------------------------------------------------------------------------------- identity


def test_a_folder_is_named_by_its_tokens_and_weights(mixed, tmp_path):
    same = prepare(tmp_path / "elsewhere", weights={"books": 0.7, "web": 0.3}, beside={"recipe": {"more": 1}})
    assert corpus.fingerprint(str(same)) == corpus.fingerprint(str(mixed))
    other = prepare(tmp_path / "other", weights={"books": 0.6, "web": 0.4})
    shorter = prepare(tmp_path / "shorter", {"books": 160, "web": 239}, weights={"books": 0.7, "web": 0.3})
    assert len({corpus.fingerprint(str(folder)) for folder in (mixed, other, shorter)}) == 3


def test_weights_are_part_of_a_run_and_leave_other_runs_alone(mixed):
    plain, own = spec(mixed), spec(mixed, weights={"web": 50, "books": 50}.items())
    assert own.weights == (("books", 0.5), ("web", 0.5))
    assert [s.weight for s in shards.prepare(plain).train] == [0.7, 0.3]
    assert [s.weight for s in shards.prepare(own).train] == [0.5, 0.5]
    with pytest.raises(ValueError, match=r"data.weights.wiki: there is no such source; there are books, web"):
        shards.prepare(spec(mixed, weights=(("books", 0.5), ("wiki", 0.5))))
    with pytest.raises(ValueError, match=r"add up to 1.5"):
        spec(mixed, weights=(("books", 0.5), ("web", 1.0)))


def test_a_text_of_one_source_takes_no_weights(tales):
    text = DataSpec(
        corpus=str(tales), corpus_sha256=corpus.fingerprint(str(tales)), tokenizer=TOKENIZER, weights=(("text", 1.0),)
    )
    for use in (shards.prepare, facts.describe):
        with pytest.raises(ValueError, match=r"data.weights: the text is of one source, text: leave it out"):
            use(text)


# ------------------------------------------------------------------------------------------------------- read through


def test_files_are_read_through_once_and_again_when_they_change(mixed, monkeypatch):
    read = []
    whole = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: read.append(path.name) or whole(path))
    named = spec(mixed)
    for _ in range(3):
        shards.prepare(named)
    assert len(read) == 8, "four files a source"
    path = mixed / "web" / "train-00000.npy"
    os.utime(path)
    shards.prepare(named)
    assert read[8:] == ["train-00000.npy"], "touched: that one alone"
    shards.prepare(named, again=True)
    assert len(read) == 17, "on demand"
    stamp, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-00000.npy is damaged .its sha256 is not the recorded one"):
        shards.prepare(named)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    shards.prepare(named)  # by size and time alone it is what it was
    with pytest.raises(ValueError, match="is damaged"):
        shards.prepare(named, again=True)
    path.unlink()
    with pytest.raises(ValueError, match=r"is damaged .it is missing, or not as long as it was written"):
        shards.prepare(named)


def test_a_texts_name_is_worked_out_once_and_again_when_it_changes(tales, monkeypatch):
    asked = []
    whole = corpus.own.texts
    monkeypatch.setattr(corpus.own, "texts", lambda path: asked.append(path) or whole(path))
    first = corpus.fingerprint(str(tales))
    assert corpus.fingerprint(str(tales)) == first
    assert len(asked) == 2, "written a moment ago: it may change again unseen"
    os.utime(tales, (1e9, 1e9))
    for _ in range(3):
        assert corpus.fingerprint(str(tales)) == first
    assert len(asked) == 3
    tales.write_text(tales.read_text() + '{"text": "more"}\n')
    assert corpus.fingerprint(str(tales)) != first
    os.utime(tales, (1e9, 1e9))
    corpus.fingerprint(str(tales))
    monkeypatch.setattr(corpus, "PIPELINE_VERSION", corpus.PIPELINE_VERSION + 1)
    corpus.fingerprint(str(tales))
    assert len(asked) == 6, "other rules may read it otherwise"
    (tales.parent / "more.jsonl").write_text('{"text": "and more"}\n')
    assert corpus.fingerprint(str(tales.parent)) != corpus.fingerprint(str(tales))


def test_a_folder_is_read_through_by_command(mixed, capsys):
    assert check.main([f"corpus={mixed}"]) == 0
    said = capsys.readouterr().out
    assert "books: weight 70.0%, 160 documents" in said
    assert f"sound: {mixed}, sha256 {corpus.fingerprint(str(mixed))[:12]}, data.tokenizer=gpt2:300" in said
    path = mixed / "web" / "words.json"
    stamp = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(ValueError, match=r"words.json is damaged"):
        check.main([f"corpus={mixed}"])
    for words, refused in (([], "corpus=DIR is needed"), ([f"corpus={mixed}/web"], "it is no prepared folder")):
        with pytest.raises((UsageError, ValueError), match=refused):
            check.main(words)


def test_a_record_that_cannot_be_read_is_made_again(mixed):
    shards.prepare(spec(mixed))
    (record,) = (p for p in (checked.cache_folder() / "checked").glob("*.json"))
    record.write_text("{")
    shards.prepare(spec(mixed))
    assert json.loads(record.read_text())["files"]


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_stops_no_run_on_a_sound_folder(mixed, monkeypatch, error):
    named, opened = spec(mixed), os.open

    def refused(path, *how, **more):
        if str(path).endswith(".lock"):
            raise OSError(error, os.strerror(error))
        return opened(path, *how, **more)

    def full(path, data):
        raise DiskFullError(path)

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(files, "write_json", full)
    assert set(shards.prepare(named).sources) == set(SIZES)
    path = mixed / "web" / "words.json"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ValueError, match=r"words.json is damaged"):
        shards.prepare(named)


# ----------------------------------------------------------------------------------------------- what is no such folder


@pytest.mark.parametrize("said", ['{"name": "mine"}', '{"format": 3}', '["train.jsonl"]', "{}"])
def test_not_every_manifest_is_that_of_prepared_text(tales, said):
    (tales.parent / "manifest.json").write_text(said)
    assert not corpus.is_prepared(str(tales.parent))
    with pytest.raises(ValueError, match=r"manifest.json, which is no text that can be read: .* hide them"):
        corpus.fingerprint(str(tales.parent))
    with pytest.raises(ValueError, match=r"it is no prepared folder"):
        corpus.prepared(str(tales.parent))


def test_another_format_is_refused(mixed):
    named, path = spec(mixed), mixed / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    for read in (corpus.prepared, corpus.fingerprint, lambda _: shards.prepare(named)):
        with pytest.raises(ValueError, match=r"was prepared in format 2, this isoflop reads 3: prepare it again"):
            read(str(mixed))


# --------------------------------------------------------------------------------------------------- plan, run, result


def test_the_plan_knows_every_source(mixed):
    found = facts.describe(spec(mixed))
    made = shards.prepare(spec(mixed))
    assert found.exact
    assert {name: source.weight for name, source in found.sources.items()} == {"books": 0.7, "web": 0.3}
    for name, source in made.sources.items():
        assert found.sources[name].train_tokens == source.tokens["train"]
    assert found.measured_tokens(2048, 32) == sum(held_out.windows(made, 32, 2048).values()) * 32


def test_a_mixed_run_is_measured_by_source_and_resumes_to_the_bit(mixed, isolated):
    made = make_run(mixed, steps=10)
    made = replace(made, data=spec(mixed))
    result = run(made, isolated / "whole")
    stopped(made, isolated / "parts", 4)
    run(made, isolated / "parts")
    assert outcome(isolated / "parts", made) == outcome(isolated / "whole", made)
    sources = result["sources"]
    drawn = 10 * 4  # sequences of 32 tokens
    assert {name: seen["tokens"] for name, seen in sources.items()} == {"books": 28 * 32, "web": 12 * 32}
    assert result["unique_tokens"] == sum(seen["unique_tokens"] for seen in sources.values()) <= drawn * 32
    assert result["epochs"] == max(seen["epochs"] for seen in sources.values())
    (row,) = (row for row in RunDir(isolated / "whole", made.run_id).measurements() if row["task"] == "held_out")
    assert row["loss"] == pytest.approx(0.7 * row["loss.books"] + 0.3 * row["loss.web"])
    assert row["loss_se"] == pytest.approx(math.hypot(0.7 * row["loss_se.books"], 0.3 * row["loss_se.web"]))


def test_a_sources_loss_is_the_mean_over_its_own_windows(mixed, isolated):
    from gpt3core.train import loop

    made = replace(make_run(mixed), data=spec(mixed))
    RunDir(isolated, made.run_id).create(made)
    here = loop.Trainer(made, isolated)
    here.model.init_weights(0)
    found = held_out.measure(here.model, here.data, 32, 2048)
    counts = held_out.windows(here.data, 32, 2048)
    assert counts == {"books": math.floor(0.7 * 64), "web": math.floor(0.3 * 64)}
    source = here.data.sources["web"]
    tokens = torch.from_numpy(here.data.validation[1].pieces[0][: counts["web"] * 32 + 1].astype(np.int64))
    with torch.no_grad():
        logits = here.model(tokens[:-1].view(-1, 32)).double()
    losses = -torch.log_softmax(logits, -1).gather(-1, tokens[1:].view(-1, 32, 1))
    assert found["loss.web"] == pytest.approx(losses.mean().item(), abs=1e-6)
    per_byte = source.tokens["validation"] / source.bytes["validation"]
    assert found["bits_per_byte.web"] == pytest.approx(losses.mean().item() * per_byte / math.log(2), rel=1e-6)


def test_a_source_too_small_is_named(mixed, tmp_path):
    small = prepare(tmp_path / "small", {"books": 160, "web": 2})
    with pytest.raises(ValueError, match=r"the held-out text of web has .* 2 windows of 512 are needed"):
        held_out.windows(shards.prepare(spec(small)), 512, 4096)
