"""Text that is trained on directly goes the way of data preparation: the same shards, copies and groups alike."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest

from gpt3core.data import corpus, facts, shards, split
from gpt3core.data.prepare import copying, pipeline
from gpt3core.data.sources import formats, own
from gpt3core.data.sources.record import Reading
from gpt3core.spec import DataSpec
from tests.conftest import sentence, sides
from tests.gpt3core import corpora


def spec(path):
    named = {"corpus": str(path), "corpus_sha256": corpus.fingerprint(str(path))}
    return DataSpec(**named, tokenizer="gpt2:300", validation_fraction=0.3)


def pages(count, rng):
    return [" ".join(f"{sentence(rng)} {rng.random()}" for _ in range(8)) for _ in range(count)]


def prepared(tmp_path, **source):
    """What the command makes of a source, by the rules that text goes by that is trained on directly."""
    path = tmp_path / "own.yaml"
    recipe = {"tokenizer": "gpt2:300", "validation_fraction": 0.3, "quality": {"rule": "none"}}
    path.write_text(json.dumps({**recipe, "sources": {"text": source}}))
    corpora.prepare(path, tmp_path / "out")
    return shards.prepare(corpus.prepared(str(tmp_path / "out")))


def test_near_copies_are_trained_on_or_held_out_once(tmp_path):
    texts = pages(60, random.Random(0))
    near = [f"{text} and once more" for text in texts]
    path = tmp_path / "text.jsonl"
    path.write_text(corpora.lines([*texts, *near, *near]))
    train, validation = sides(path, validation_fraction=0.3)
    assert len(train) + len(validation) == 60
    known = {text: number for number, text in enumerate(texts)} | {text: number for number, text in enumerate(near)}
    assert not {known[text] for text in train} & {known[text] for text in validation}
    assert facts.describe(spec(path)).documents == 60, "the plan counts what is trained on"


def test_lines_of_json_have_the_shards_that_data_preparation_makes_of_them(tmp_path):
    texts = pages(80, random.Random(1))
    path = tmp_path / "text.jsonl"
    path.write_text(corpora.lines([*texts, *(f"{text} again" for text in texts[:9])]))
    assert shards.prepare(spec(path)).sources == prepared(tmp_path, path=[str(path)]).sources


def test_long_text_has_the_shards_of_its_stretches_which_are_on_one_side(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(pages(300, random.Random(2))))
    stretch = own.about(str(path)).stretch(0.3)
    made = shards.prepare(spec(path))
    assert made.sources == prepared(tmp_path, path=[str(path)], stretch=stretch).sources
    of = {passage: whole for whole, passage in split.passages(path.read_text(), stretch)}
    train, validation = sides(path, validation_fraction=0.3)
    assert len(of) > len(set(of.values()))
    assert set(train) | set(validation) == set(of)
    assert not {of[text] for text in train} & {of[text] for text in validation}


def test_text_of_near_copies_alone_is_one_sentence(tmp_path):
    (text,) = pages(1, random.Random(3))
    path = tmp_path / "text.jsonl"
    path.write_text(corpora.lines([f"{text} {n}" for n in range(20)]))
    with pytest.raises(
        ValueError, match=r"is one piece of .* near-copies left out, which cannot be split into training"
    ):
        shards.prepare(spec(path))


def test_a_text_that_changes_while_it_is_prepared_leaves_no_shards(tmp_path, monkeypatch):
    path = tmp_path / "text.jsonl"
    path.write_text(corpora.lines(pages(40, random.Random(4))))
    named, whole = spec(path), pipeline.stages

    def stages(*given):
        path.write_text(path.read_text() + '{"text": "more"}\n')
        return whole(*given)

    monkeypatch.setattr(pipeline, "stages", stages)
    with pytest.raises(ValueError, match="was specified on"):
        shards.prepare(named)
    assert shards.described(named) is None


def test_a_text_that_is_known_is_read_once_more_to_prepare_it(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(pages(300, random.Random(2))))
    os.utime(path, (0, 0))  # long enough ago to be remembered
    named, records, read = spec(path), formats.records, []

    def counted(*given):
        read.append(given)
        return records(*given)

    monkeypatch.setattr(formats, "records", counted)
    shards.prepare(named)
    assert len(read) == 1


def test_a_line_that_is_no_document_is_refused_and_not_held(tmp_path, monkeypatch):
    path = tmp_path / "text.jsonl"
    path.write_text(corpora.lines([*pages(2, random.Random(5)), "x" * 5000]))
    monkeypatch.setattr(own, "STRICT", Reading(most_bytes=4000))
    with pytest.raises(ValueError, match=r"text\.jsonl line 3 is longer than 4000 bytes, .* a higher bad.longest_mb"):
        corpus.fingerprint(str(path))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"path": ["text.jsonl"], "stretch": 3000}, "sources.text.stretch has no effect: it is of plain text, and no"),
        ({"package": "kjv", "stretch": 3000}, "sources.text.stretch has no effect: it is of plain text in files"),
        ({"path": ["text.txt"], "stretch": 10}, r"sources.text.stretch=10: it lies between 100 and 1e\+09"),
    ],
)
def test_stretches_without_an_effect_or_a_meaning_are_refused(tmp_path, monkeypatch, source, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jsonl").write_text(corpora.lines(["a", "b"]))
    (tmp_path / "text.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=sentence):
        prepared(tmp_path, **source)


def test_what_copies_and_groups_bind_is_drawn_together():
    """Documents 0 and 1 are copies, 1 and 3 of a group, 3 and 4 copies; 2 and 5 are of another group, 6 is alone."""
    alike = np.array([0, 0, 2, 3, 3, 5, 6])
    found = copying.together(alike, [None, "g", "h", "g", None, "h", None])
    assert found.tolist() == [0, 0, 2, 0, 0, 2, 6]
