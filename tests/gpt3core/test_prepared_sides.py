"""Which text data preparation trains on and holds out, and which evaluation examples are in it."""

from __future__ import annotations

import json
import random

import pytest

from gpt3core.data.prepare import cleaning
from gpt3core.store import files
from tests.gpt3core import corpora
from tests.gpt3core.corpora import prepare


def held_out(out, source):
    return {line["text"] for line in files.read_lines(out / source / "documents.jsonl")}


def few(tmp_path, **texts):
    """A recipe of sources of a few short texts."""
    for source, of in texts.items():
        (tmp_path / f"{source}.jsonl").write_text(corpora.lines(of))
    sources = {source: {"path": [str(tmp_path / f"{source}.jsonl")]} for source in texts}
    path = tmp_path / "few.yaml"
    path.write_text(json.dumps({"tokenizer": "gpt2:300", "dedup": {"rule": "none"}, "sources": sources}))
    return path


def test_a_text_is_on_one_side_in_all_sources(tmp_path):
    texts = sorted((f"text {n}" for n in range(60)), key=cleaning.draw)
    below = [text for text in texts if cleaning.draw(text) <= 0.5]
    large = {"large": texts}
    for n, small in enumerate((texts[-4:], below[:4])):  # none, or all, below the fraction
        out = tmp_path / str(n)
        prepare(few(tmp_path, small=small, **large), out, "validation_fraction=0.5")
        held = held_out(out, "small")
        assert 1 <= len(held) < 4
        assert held_out(out, "large") & set(small) == held
    one, two, three = texts[:3]
    prepare(few(tmp_path, a=[one, two], b=[two, three]), tmp_path / "pairs", "validation_fraction=0.5")
    held = [held_out(tmp_path / "pairs", source) for source in "ab"]
    assert held[0] & {two} == held[1] & {two}
    round_ = {"a": [one, two], "b": [two, three], "c": [three, one]}  # two of the three are on one side
    with pytest.raises(ValueError, match=r"sources.c has no \w+ text: its documents are few, and lie in other"):
        prepare(few(tmp_path, **round_), tmp_path / "round", "validation_fraction=0.5")


@pytest.mark.parametrize("within", [False, True])
def test_copies_in_different_sources_are_on_one_side_where_all_of_them_stay(tmp_path, within):
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=60)) for _ in range(40)]
    near = [f"{text} a b c" for text in texts]  # chains: the third is nearer to the second than to the first
    far = [f"{text} d e f" for text in near]
    path = few(tmp_path, one=texts + (near if within else []), two=near, three=far)
    out = tmp_path / "out"
    prepare(path, out, "validation_fraction=0.5", "dedup.rule=fuzzy", "dedup.across=false")
    manifest = files.read_object(out / "manifest.json")["sources"]
    assert [sum(manifest[source]["documents"].values()) for source in ("one", "two", "three")] == [40] * 3
    one, two, three = (held_out(out, source) for source in ("one", "two", "three"))
    assert 5 < len(two) < 35
    assert [text in three for text in far] == [text in two for text in near]
    copies = zip(texts, near, strict=True)
    assert [bool({text, copy} & one) for text, copy in copies] == [text in two for text in near]


def test_examples_are_dirty_by_what_is_trained_on_after_the_cut(tmp_path, capsys):
    cut, short, apart = examples = [[f"{letter}{n}" for n in range(14)] for letter in "abc"]
    filler = [" ".join(f"filler{text}x{n}" for n in range(60)) for text in range(40)]
    nine = {text: f"{text} {' '.join(short[:9])}" for text in filler}  # too short to be cut out, and dirty
    only = {text: f"{text} {' '.join(apart[:9])}" for text in filler}  # the same, and held out
    trained = next(text for text in filler if cleaning.draw(nine[text]) > 0.5)
    aside = next(text for text in filler if cleaning.draw(only[text]) <= 0.1)
    texts = [*filler, nine[trained], only[aside], f"{filler[0]} {' '.join(cut)}"]
    (tmp_path / "sets").mkdir()
    lines = [" ".join(example) for example in examples] + ["one two three four five six seven"] * 9
    (tmp_path / "sets" / "short.txt").write_text("\n".join(lines))
    path = few(tmp_path, one=texts)
    prepare(path, tmp_path / "out", "validation_fraction=0.3", f"decontaminate.against=[{tmp_path / 'sets'}]")
    found = files.read_object(tmp_path / "out" / "manifest.json")["evaluation_sets"]["short"]
    assert found["n"] == 8
    assert (found["dirty_before_cut"], found["dirty"]) == ([0, 1, 2], [1])
    assert "11 of 12 examples clean (91.7%), by 8-grams of the training text; 1 dirty, 3 before the cut" in (
        capsys.readouterr().out
    )
