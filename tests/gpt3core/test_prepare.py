"""Data preparation end to end: the same bytes from any order and after any stop, a sentence for what cannot be done."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random

import pyarrow as pa
import pytest
from pyarrow import parquet

from gpt3core.data import corpus, shards
from gpt3core.data.prepare import filtering, parts, read, recipe, task
from gpt3core.data.prepare.__main__ import main
from gpt3core.errors import UsageError
from gpt3core.spec import DataSpec
from gpt3core.store import files
from tests.gpt3core import corpora
from tests.gpt3core.corpora import PLAIN, prepare

# ------------------------------------------------------------------------------------------------- the same bytes


def packed_otherwise(folder):
    draw = random.Random(3)
    for source, texts in corpora.documents().items():
        mixed = draw.sample(texts, len(texts))
        (folder / f"{source}1.jsonl.gz").write_bytes(gzip.compress(corpora.lines(mixed[:20]).encode()))
        (folder / f"{source}2.jsonl.xz").write_bytes(lzma.compress(corpora.lines(mixed[20:30]).encode()))
        with pa.CompressedOutputStream(str(folder / f"{source}3.jsonl.zst"), "zstd") as file:
            file.write(corpora.lines(mixed[30:40]).encode())
        parquet.write_table(pa.table({"text": mixed[40:]}), folder / f"{source}0.parquet", row_group_size=7)


def test_order_and_compression_of_files_and_the_number_of_parts_change_no_byte(made, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 9000)
    monkeypatch.setattr(read, "GROUP_BYTES", 500)
    monkeypatch.setattr(read, "FAN", 3)  # runs are merged, and runs of runs
    corpora.write(tmp_path / "text")
    for source in corpora.SOURCES:
        (tmp_path / "text" / f"{source}.jsonl").unlink()
    packed_otherwise(tmp_path / "text")
    prepare(corpora.recipe(tmp_path / "text"), tmp_path / "out")
    assert len(list((tmp_path / "out" / "decisions").iterdir())) > 5
    assert corpora.shards(tmp_path / "out") == corpora.shards(made[1])
    assert corpus.fingerprint(str(tmp_path / "out")) == corpus.fingerprint(str(made[1]))


def reads(chunks):
    """How many files all tasks together read that bring so many chunks into parts, and the most that one reads."""
    runs, count, most = [read.Run(files=(None,), bytes=parts.PART_BYTES)] * chunks, 0, 0
    while runs:
        last = len(runs) <= read.FAN
        made = []
        for group in [runs] if last else read.groups(runs):
            given = read.stretches(group, read.number_of_parts(sum(run.bytes for run in group)))
            count += sum(len(words["sorted_files"]) for words in given)
            most = max(most, *(len(words["sorted_files"]) for words in given))
            made.append(read.Run(files=(None,) * len(given), bytes=sum(run.bytes for run in group)))
        runs = [] if last else made
    return count, most


def test_the_files_read_to_order_a_corpus_grow_as_it_does():
    assert reads(read.FAN) == (read.FAN**2, read.FAN)
    for chunks in (1000, 2000, 4000):
        count, most = reads(chunks)
        assert count <= 2 * read.FAN * chunks, "once chunks for each of the parts: 16 million of the last"
        assert most <= 2 * read.FAN


@pytest.mark.soak
def test_workers_in_processes_change_no_byte(made, tmp_path):
    prepare(made[0], tmp_path / "out", "workers=3", spread=task.in_processes)
    assert corpora.shards(tmp_path / "out") == corpora.shards(made[1])


def test_a_stretch_without_documents_is_merged_as_one_with(tmp_path):
    columns = {
        "place": pa.array([5], pa.int64()),
        **{name: pa.array(["x"], pa.string()) for name in ("id", "source", "group")},
    }
    one, none, both = (tmp_path / f"{name}.parquet" for name in ("one", "none", "both"))
    parts.write(one, {**columns, "text": pa.array(["x"], pa.large_string())}, {})
    read.merge(none, sorted_files=[one], number=3, of=4)
    assert parquet.read_metadata(none).num_rows == 0
    read.merge(both, sorted_files=[none, one], number=0, of=1)
    assert parquet.read_table(both, columns=["place"]).column("place").to_pylist() == [5]


# -------------------------------------------------------------------------------------------- what the folder says


def decisions(out):
    return pa.concat_tables([parquet.read_table(path) for path in sorted((out / "decisions").iterdir())]).to_pandas()


def test_every_document_has_a_decision_and_what_was_kept_is_what_was_tokenized(made):
    found = decisions(made[1])
    texts = corpora.documents()
    assert found["source"].value_counts().to_dict() == {source: len(of) for source, of in texts.items()}
    assert found["id"].is_unique
    assert set(found["rule"]) == {"", "quality", "copy"}
    assert (found["kept"] == (found["rule"] == "")).all()
    assert set(found.query("rule == 'quality'")["source"]) == {"web"}, "curated text is never filtered"
    assert (found.query("source == 'wiki'")["rule"] == "copy").sum() == 6, "the planted copies"
    manifest = files.read_object(made[1] / "manifest.json")
    for source, about in manifest["sources"].items():
        left = found.query(f"source == '{source}' and kept")
        pieces = 1 if source == "books" else 0  # evaluation text cuts one of its documents in two
        assert sum(about["documents"].values()) == len(left) + pieces
        assert about["documents"]["validation"] >= 1
    assert manifest["evaluation_sets"]["owls"]["dirty_before_cut"] == [0]
    assert manifest["evaluation_sets"]["owls"]["dirty"] == []
    assert found["detail"].str.contains("collisions cut out").sum() == 1


def test_a_run_takes_the_folder_and_no_evaluation_text_is_in_it(made):
    from gpt3core.data import tokenizer

    spec = DataSpec(corpus=str(made[1]), corpus_sha256=corpus.fingerprint(str(made[1])), tokenizer="gpt2:300")
    prepared = shards.prepare(spec)
    assert {name: round(of.weight, 3) for name, of in prepared.sources.items()} == {
        "web": 0.6,
        "books": 0.3,
        "wiki": 0.1,
    }
    decoded = "".join(
        tokenizer.load("gpt2:300").decode(piece.tolist())
        for stream in (*prepared.train, *prepared.validation)
        for piece in stream.pieces
    )
    assert "seven wise owls" not in decoded
    assert any(text in decoded for text in corpora.documents()["wiki"])


def test_whole_folders_are_not_made_again_and_other_settings_are_refused(made):
    before = (made[1] / "manifest.json").stat().st_mtime_ns
    assert prepare(made[0], made[1]) == 0
    assert (made[1] / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"was prepared by other settings .dedup.rule fuzzy -> none.: give another"):
        prepare(made[0], made[1], "dedup.rule=none")


def test_a_plan_reads_and_writes_nothing(made, tmp_path, capsys):
    assert prepare(made[0], tmp_path / "out", "--plan") == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert "stages: read, gather, filter, drop copies (fuzzy), cut out 1 evaluation sets" in said
    assert "0.600" in said


def test_a_plan_does_not_say_how_much_text_there_is_that_is_not_fetched(made, tmp_path, capsys):
    path = tmp_path / "few.yaml"
    path.write_text(json.dumps({"sources": {"a": {"package": "kjv"}}, "quality": {"rule": "none"}}))
    assert prepare(path, tmp_path / "out", "--plan") == 0
    said = capsys.readouterr().out
    assert "how long it takes, is not known before it is fetched" in said
    assert "about 0 MB" not in said
    files_beside = f"sources.b.path={made[0].parent}/books.jsonl"
    assert prepare(path, tmp_path / "out", files_beside, "--plan") == 0
    assert "; a not counted: known when it is fetched" in capsys.readouterr().out


def test_the_data_choices_are_an_axis(made, tmp_path):
    prepare(made[0], tmp_path / "all", *PLAIN)
    manifest = files.read_object(tmp_path / "all" / "manifest.json")
    texts = corpora.documents()
    assert {name: sum(of["documents"].values()) for name, of in manifest["sources"].items()} == {
        source: len(of) for source, of in texts.items()
    }


def test_the_filter_learns_from_the_beginning_of_long_documents(tmp_path):
    texts = ["short", "long " * 100_000]
    parts.write_documents(tmp_path / "part", parts.Part(ids=["a", "b"], sources=["web"] * 2, texts=texts), {})
    filtering.sample(tmp_path / "out", part=tmp_path / "part", rates={"web": 1.0}, seed=0)
    assert parts.documents(tmp_path / "out").texts == [text[:65_536] for text in texts]


# ------------------------------------------------------------------------------------------------------- bad input


def refused(tmp_path, *words, match, error=ValueError):
    path = tmp_path / "text" / "small.yaml"
    if not path.exists():
        corpora.write(tmp_path / "text")
    with pytest.raises(error, match=match) as raised:
        prepare(path, tmp_path / "out", *words)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["sources.web.wieght=3"], "unknown key 'sources.web.wieght', did you mean weight"),
        (["qualty.rule=none"], "unknown key 'qualty.rule', did you mean .*quality.rule"),
        (["quality.rule=none", "quality.alpha=3"], "quality.alpha has no effect"),
        (
            ["sources.web.role=curated", "quality.alpha=3"],
            "quality.alpha has no effect: the filter needs a source with",
        ),
        (["decontaminate.against=[]", "decontaminate.gram=8"], "decontaminate.gram has no effect"),
        (["quality.rule=none", "seed=3"], "seed has no effect: nothing is drawn but by the filter"),
        (["sources.wiki.split=dev"], "sources.wiki.split has no effect: it is of data sets only"),
        (["sources.web.weight=80"], "add up to 120 .*shares that add up to 1 or to 100"),
        (["sources.web.weight=null"], "sources.web.weight is missing: give every source's weight, or none"),
        (["sources.web.weight=-1"], "web=-1"),
        (["sources.web.role=raw"], "sources.web.role='raw': allowed are curated, web"),
        (["sources.web.package=kjv"], "sources.web has path and package: give one of"),
        (["sources.a/b.path=x"], "letters, digits, - and _"),
        (["sources.episodes.path=x"], "episodes is the name of generated text"),
        (["sources.decisions.path=x"], "sources.decisions: that folder is the log's: give the source another name"),
        (["sources.wiki.path=[]"], "sources.wiki has no text: give one of path"),
        (["sources.wiki.path=/nowhere/x"], "sources.wiki.path=/nowhere/x: no such file or folder"),
        (["decontaminate.against=/nowhere/x.jsonl"], "against=/nowhere/x.jsonl: no such .*: allowed are .jsonl files"),
        (["tokenizer=gpt3"], "tokenizer='gpt3'"),
        (["bad.share=2"], "bad.share=2: it lies between 0 and 1"),
        (["workers=none"], "workers=none: a number of processes"),
        (["validation_fraction=0"], "validation_fraction=0"),
    ],
)
def test_what_cannot_be_prepared_is_one_sentence(tmp_path, words, match):
    refused(tmp_path, *words, match=match)
    assert not (tmp_path / "out").exists()


def test_keys_of_files_are_refused_where_no_file_has_them(tmp_path):
    packages = {"a": {"package": "kjv"}, "b": {"package": "milton"}}
    path = tmp_path / "few.yaml"
    path.write_text(json.dumps({"seed": 1, "sources": {**packages, "c": {"package": "lxml-pages", "role": "web"}}}))
    assert recipe.load([f"recipe={path}", "quality.rule=none"]).seed == 1, "a filter is left out as easily with a seed"
    for key, why in (
        ("longest_mb=9", "it is of files"),
        ("files=2", "it is of files"),
        ("share=0.1", "of packages is"),
    ):
        with pytest.raises(UsageError, match=f"bad.{key[:4]}.* has no effect: .*{why}"):
            recipe.load([f"recipe={path}", f"bad.{key}"])
    (tmp_path / "x.txt").write_text("text")
    for key in ("id=name", "text=body"):
        path.write_text(json.dumps({"sources": {"a": {"path": [str(tmp_path / "x.txt")]}}}))
        with pytest.raises(
            ValueError, match=rf"sources.a.{key.partition('=')[0]} has no effect: its files are .txt, which have no"
        ):
            prepare(path, tmp_path / "out", f"sources.a.{key}")


@pytest.mark.parametrize("name", ["x.parquet", "x.warc.gz"])
def test_evaluation_sets_that_have_no_lines_are_refused(tmp_path, name):
    corpora.write(tmp_path / "text")
    (tmp_path / "text" / "sets" / name).write_bytes(b"")
    refused(tmp_path, match=rf"has /.*/{name}, of which no examples are read: allowed are .jsonl files")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"against=/.*/sets has no file: give evaluation sets, or leave it out"),
        ("", "owls.jsonl has no examples"),
        ('{"answer": 3}\n', "owls.jsonl has no examples"),
        ("[" * 100_000, "owls.jsonl cannot be read"),
    ],
)
def test_evaluation_sets_without_examples_are_refused(tmp_path, content, said):
    corpora.write(tmp_path / "text")
    owls = tmp_path / "text" / "sets" / "owls.jsonl"
    owls.unlink() if content is None else owls.write_text(content)
    refused(tmp_path, match=said)


def test_the_command_says_what_it_needs(tmp_path):
    with pytest.raises(UsageError, match="one recipe is needed, not none"):
        main(["out=x"])
    with pytest.raises(UsageError, match="out=DIR is needed"):
        main([f"recipe={corpora.write(tmp_path)}"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds thesis.tex already: give a new or empty folder"):
        prepare(tmp_path / "small.yaml", tmp_path / "mine")


def test_bad_lines_are_counted_and_kept_aside_until_there_are_too_many(tmp_path):
    path = corpora.write(tmp_path / "text")
    with open(tmp_path / "text" / "wiki.jsonl", "ab") as file:
        file.write(b'{"text": 3}\n{"text": "caf\xe9"}\n{"tex')
    said = refused(tmp_path, match="sources.wiki has 3 of 69 documents that are bad, more than the recipe allows")
    assert "wiki.jsonl line 67: its text is a number" in said
    prepare(path, tmp_path / "out", "bad.share=0.1", *PLAIN)
    bad = files.read_lines(tmp_path / "out" / "bad.jsonl")
    assert [line["kind"] for line in bad] == ["text", "encoding", "json"]
    assert files.read_object(tmp_path / "out" / "manifest.json")["read"]["wiki"]["documents"] == 66


def test_damaged_files_stop_the_command_or_are_read_up_to_the_damage(tmp_path):
    path = corpora.write(tmp_path / "text")
    whole = gzip.compress("".join(corpora.lines([f"page {n} {os.urandom(300).hex()}"]) for n in range(900)).encode())
    (tmp_path / "text" / "wiki2.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    said = refused(tmp_path, match="sources.wiki has 1 files of which not all can be read")
    assert "wiki2.jsonl.gz is not a whole gzip file" in said
    with open(tmp_path / "text" / "wiki.jsonl", "ab") as file:
        file.write(b'{"text": 3}\n' * 1100)  # more than are kept
    said = refused(tmp_path, match="sources.wiki has 1 files of which not all can be read")
    assert "wiki2.jsonl.gz is not a whole gzip file" in said
    said = refused(tmp_path, "bad.files=1", match=r"sources.wiki has 110\d of \d+ documents that are bad")
    assert "wiki.jsonl line 67: its text is a number" in said
    prepare(path, tmp_path / "out", "bad.files=1", "bad.share=0.9", *PLAIN)
    counts = files.read_object(tmp_path / "out" / "manifest.json")["read"]["wiki"]
    assert 66 + 300 < counts["documents"] < 66 + 460
    assert counts["bad.damaged"] == 1


def test_what_has_no_text_is_said(tmp_path):
    corpora.write(tmp_path / "text")
    (tmp_path / "text" / "wiki.jsonl").write_text("\n \n")
    refused(tmp_path, match="sources.wiki is empty: there is no text in it")
    (tmp_path / "text" / "wiki.jsonl").write_bytes(os.urandom(20_000))
    refused(tmp_path, match=r"wiki has \d+ of \d+ documents that are bad, .*wiki.jsonl .* not")
    (tmp_path / "text" / "wiki.jsonl").write_text('{"text": "one"}\n')
    refused(tmp_path, "quality.rule=none", match="of sources.wiki one document is left, which cannot be split")
    (tmp_path / "text" / "wiki.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "text" / "sets" / "owls.jsonl").write_text("{")
    refused(tmp_path, match="the evaluation set .*owls.jsonl cannot be read")


def test_duplicate_ids_are_numbered_and_copies_without_id_are_too(tmp_path):
    path = corpora.write(tmp_path / "text")
    texts = corpora.documents()["wiki"]
    rows = [{"text": text, "id": n % 50} for n, text in enumerate(texts)]
    (tmp_path / "text" / "wiki.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(path, tmp_path / "out", "sources.wiki.id=id", *PLAIN)
    manifest = files.read_object(tmp_path / "out" / "manifest.json")
    assert manifest["same_name"] == {"wiki": 16}
    wiki = decisions(tmp_path / "out").query("source == 'wiki'")
    assert wiki["id"].is_unique
    assert wiki["id"].str.endswith("~2").sum() == 16


def test_a_name_with_half_a_character_is_a_bad_line_or_repaired(tmp_path):
    path = corpora.write(tmp_path / "text")
    rows = [{"text": f"one {n}", "id": f"{n}\ud800"} for n in range(20)]
    (tmp_path / "text" / "wiki.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(tmp_path, "sources.wiki.id=id", match=r"20 of 20 documents .*line 1: its id has half of a surrogate pair")
    prepare(path, tmp_path / "repaired", "sources.wiki.id=id", "sources.wiki.encoding=repair", *PLAIN)
    wiki = decisions(tmp_path / "repaired").query("source == 'wiki'")
    assert set(wiki["id"]) == {f"{n}\ufffd" for n in range(20)}


def test_every_recipe_that_comes_with_isoflop_is_sound():
    for name in recipe.available():
        assert recipe.load([f"recipe={name}"]).sources
