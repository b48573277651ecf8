"""What a plan says of a text, against the shards that are made of it and a simulation."""

from __future__ import annotations

import gzip
import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from gpt3core.data import corpus, facts, shards, tokenizer
from gpt3core.data.sources import own
from gpt3core.errors import StoreError
from gpt3core.spec import DataSpec
from tests.conftest import sentence, write_corpus
from tests.gpt3core import corpora


def spec(path):
    return DataSpec(corpus=str(path), corpus_sha256=corpus.fingerprint(str(path)), tokenizer="gpt2:300")


def one_source(validation_tokens):
    text = facts.SourceFacts(weight=1.0, train_tokens=1, validation_tokens=validation_tokens)
    return facts.TextFacts(documents=1, bytes=1, sources={"text": text}, exact=True)


def test_a_small_text_is_counted_and_its_cache_says_the_same(tales):
    planned = facts.describe(spec(tales))
    made = shards.prepare(spec(tales))
    tokens = made.total("tokens")
    assert planned.exact
    assert planned.documents == 400
    assert (planned.train_tokens, planned.validation_tokens) == (tokens["train"], tokens["validation"])
    assert planned.bytes == sum(made.total("bytes").values())
    assert facts.describe(spec(tales)) == planned


def test_a_large_text_is_estimated_from_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "PLANNED_BYTES", 10**6)
    monkeypatch.setattr(facts, "SAMPLE_BYTES", 10**6)
    text = spec(write_corpus(tmp_path / "large", documents=4000))
    planned = facts.describe(text)
    assert planned.bytes > 2 * facts.SAMPLE_BYTES
    assert not planned.exact
    tokens = shards.prepare(text).total("tokens")
    assert planned.train_tokens == pytest.approx(tokens["train"], rel=0.01)
    assert facts.describe(text).train_tokens == tokens["train"]
    assert facts.describe(text).exact


@pytest.mark.parametrize("seed", range(4))
def test_of_a_few_long_documents_some_of_each_is_counted(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(facts, "PLANNED_BYTES", 30_000)
    monkeypatch.setattr(facts, "SAMPLE_BYTES", 30_000)
    draw = random.Random(seed)
    books = [" ".join(sentence(draw) for _ in range(1000)) for _ in range(12)]
    path = tmp_path / "books.jsonl"
    path.write_text(corpora.lines(books))
    planned = facts.describe(spec(path))
    encoding = tokenizer.load("gpt2:300")
    tokens = sum(len(encoding.encode_ordinary(book)) + 1 for book in books)
    assert not planned.exact
    assert planned.train_tokens + planned.validation_tokens == pytest.approx(tokens, rel=0.02)


def test_a_plan_where_no_cache_can_be_written_estimates_and_a_run_says_which_folder_it_is(tales, monkeypatch):
    cache = tales.with_name("cache")
    cache.symlink_to("a disk that is away")  # root may write whatever there is
    monkeypatch.setenv("ISOFLOP_CACHE", str(cache))
    text = spec(tales)
    planned = facts.describe(text)
    assert not planned.exact
    assert facts.for_tasks(text) is None
    with pytest.raises(StoreError, match="name a writable folder by ISOFLOP_CACHE"):
        shards.prepare(text)
    monkeypatch.setenv("ISOFLOP_CACHE", str(tales.with_name("another cache")))
    assert planned.train_tokens == pytest.approx(facts.describe(text).train_tokens, rel=0.01)


def test_a_text_is_small_by_its_text_and_not_by_its_file(tmp_path, monkeypatch):
    path = tmp_path / "packed.jsonl.gz"
    path.write_bytes(gzip.compress(write_corpus(tmp_path / "text").read_bytes()))
    monkeypatch.setattr(facts, "PLANNED_BYTES", 2 * path.stat().st_size)
    assert own.about(str(path)).bytes > facts.PLANNED_BYTES
    assert not facts.describe(spec(path)).exact
    assert facts.for_tasks(spec(path)) is None


def test_a_cached_text_is_not_read_or_tokenized(tales, monkeypatch):
    text = spec(tales)
    planned = facts.describe(text)
    shards.prepare(text)
    tales.unlink()
    monkeypatch.setattr(tokenizer, "load", None)
    assert facts.describe(text) == planned


def test_text_that_was_altered_or_prepared_by_other_rules_is_refused(tales):
    with pytest.raises(ValueError, match="was specified on 000000000000"):
        facts.describe(replace(spec(tales), corpus_sha256="0" * 64))
    for use in (facts.describe, shards.prepare):
        with pytest.raises(ValueError, match="version 1 of the text's preparation, this isoflop has 4"):
            use(replace(spec(tales), pipeline_version=1))


def test_the_resolution_is_two_standard_errors_of_a_paired_difference():
    """A seeded simulation: differences below it are lost in the noise of 95% of draws, no formula of ours."""
    found = one_source(40_001)
    rng = np.random.default_rng(0)
    stretches = 40_000 // 8
    noise = rng.normal(0, facts.PAIRED_SD / math.sqrt(8), (2000, stretches)).mean(1)  # per-token variance over 8 tokens
    assert np.mean(np.abs(noise) < found.loss_resolution(10**9, 100)) == pytest.approx(0.954, abs=0.015)


def test_only_whole_windows_of_held_out_text_count():
    found = one_source(1000)
    assert found.loss_resolution(512, 128) == facts.smallest_difference(512)
    assert found.loss_resolution(600, 128) == facts.smallest_difference(512)
    assert found.loss_resolution(10**6, 128) == facts.smallest_difference(896)
    assert found.loss_resolution(100, 128) == math.inf
    assert facts.smallest_difference(400) == pytest.approx(facts.smallest_difference(100) / 2)


def test_neither_torch_nor_pyarrow_is_imported():
    code = (
        "import sys; from gpt3core.data import facts; from gpt3core.evals import tasks; tasks.names(); "
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pyarrow", "ray"} & set(loaded)
