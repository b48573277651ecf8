"""A user's own text: the same text in every file format, and a sentence for whatever cannot be read."""

from __future__ import annotations

import gzip
import json
import os

import pyarrow as pa
import pytest
from pyarrow import parquet

from gpt3core.data import corpus, facts, shards
from gpt3core.data.sources import own
from gpt3core.spec import DataSpec
from tests.conftest import sides

DOCUMENTS = [f"This is document {n} of them, caf\u00e9 \U0001f600." for n in range(40)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS)


def plain(folder):
    (folder / "all.jsonl").write_text(LINES)


def byte_order_mark(folder):
    (folder / "marked.jsonl").write_text(LINES, encoding="utf-8-sig")


def byte_order_marks(folder):
    marked = ["\ufeff" + line for line in LINES.splitlines(keepends=True)]  # files with marks, put together
    (folder / "marked.jsonl").write_text("".join(marked))


def compressed(folder):
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))


def columns(folder):
    parquet.write_table(pa.table({"id": range(40), "text": DOCUMENTS}), folder / "table.parquet")


def mixed_and_in_folders(folder):
    lines = LINES.splitlines(keepends=True)
    (folder / "z.jsonl").write_text("".join(lines[30:]))
    (folder / "a").mkdir()
    (folder / "a" / "b.JSONL.gz").write_bytes(gzip.compress("".join(reversed(lines[:20])).encode()))
    parquet.write_table(pa.table({"text": DOCUMENTS[15:31]}), folder / "a" / "c.parquet")  # some of them twice
    (folder / ".hidden.csv").write_text("a,b\n")
    (folder / "empty.txt").write_text("")


@pytest.fixture
def folder(tmp_path):
    """A folder for text, with nothing else in it."""
    made = tmp_path / "folder"
    made.mkdir()
    return made


@pytest.mark.parametrize("write", [byte_order_mark, byte_order_marks, compressed, columns, mixed_and_in_folders])
def test_the_same_documents_are_the_same_text_in_every_format(tmp_path, write):
    for folder, writer in (("plain", plain), ("other", write)):
        (tmp_path / folder).mkdir()
        writer(tmp_path / folder)
    assert corpus.fingerprint(str(tmp_path / "other")) == corpus.fingerprint(str(tmp_path / "plain"))
    assert sides(tmp_path / "other") == sides(tmp_path / "plain")


def test_long_texts_are_the_same_with_other_line_ends_and_compressed(tmp_path):
    text = "\n".join(f"Line {n} of a long text." for n in range(2000))
    for name, data in (("unix", text), ("dos", text.replace("\n", "\r\n")), ("marked", "\ufeff" + text)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_bytes(data.encode())
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "x.txt.gz").write_bytes(gzip.compress(text.encode()))
    expected = corpus.fingerprint(str(tmp_path / "unix"))
    assert [corpus.fingerprint(str(tmp_path / n)) for n in ("dos", "marked", "packed")] == [expected] * 3
    assert sides(tmp_path / "packed") == sides(tmp_path / "unix")


def parquet_of(values, kind=None, name="text"):
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({name: pa.array(values, kind)}), sink)
    return sink.getvalue().to_pybytes()


GOOD = b'{"text": "good"}\n'
BAD = {
    "null": ("x.jsonl", GOOD + b'{"text": null}\n', r"x\.jsonl line 2: its text is null, a string is needed"),
    "number": ("x.jsonl", b'{"text": 3.5}\n', "line 1: its text is a number"),
    "list": ("x.jsonl", GOOD + b'\n{"text": ["a"]}\n', "line 3: its text is a list"),
    "not an object": ("x.jsonl", b'["text"]\n', "line 1 is not a JSON object with a text field .a list"),
    "other fields": ("x.jsonl", b'{"body": "a", "id": 1}\n', "it has body, id"),
    "truncated": ("x.jsonl", GOOD + b'{"text": "b', "line 2 is not a JSON object .*truncated file"),
    "deep": ("x.jsonl", b"[" * 200_000, "line 1 is not a JSON object"),
    "surrogate": (
        "x.jsonl",
        GOOD + b'{"text": "a\\ud800"}\n',
        r"line 2: its text has half of a surrogate pair .'\\ud800'",
    ),
    "utf-16": ("x.jsonl", GOOD.decode().encode("utf-16"), "x.jsonl is UTF-16 or UTF-32 .* convert it to UTF-8"),
    "utf-16 without mark": ("x.txt", "good".encode("utf-16-le"), "has a zero byte at byte 1 "),
    "latin-1": ("x.txt", b"abc caf\xe9 ", "x.txt is not UTF-8 text .*at byte 7"),
    "latin-1 after a mark": ("x.txt", b"\xef\xbb\xbfcaf\xe9 ", "at byte 6"),
    "truncated gzip": ("x.txt.gz", gzip.compress(os.urandom(9999))[:5000], "x.txt.gz is not a whole gzip file"),
    "no gzip": ("x.jsonl.gz", GOOD, "x.jsonl.gz is not a whole gzip file"),
    "no parquet": ("x.parquet", GOOD, "x.parquet is not a whole Parquet file"),
    "truncated parquet": ("x.parquet", parquet_of(["a"] * 99)[:-20], "x.parquet is not a whole Parquet file"),
    "empty parquet": ("x.parquet", b"", "x.parquet is not a whole Parquet file"),
    "parquet column": ("x.parquet", parquet_of(["a"], name="body"), r"has no column text \(it has body\)"),
    "parquet null": ("x.parquet", parquet_of(["a", None]), "x.parquet row 2: its text is null"),
    "parquet numbers": ("x.parquet", parquet_of([1, 2]), "row 1: its text is a number"),
    "parquet bytes": ("x.parquet", parquet_of([b"a"]), "row 1: its text is a bytes"),
    "table": ("x.csv", b"text\ngood\n", r"has \S*x.csv, which is no text that can be read.*allowed are .txt"),
    "compressed otherwise": ("x.jsonl.rar", b"Rar!", "x.jsonl.rar, which is no text that can be read"),
    "read me": ("README.md", b"# text", "README.md, which is no text that can be read"),
    "empty": ("x.jsonl", b" \n\n", "is empty: there is no text in it"),
    "empty documents": ("x.jsonl", b'{"text": " "}\n', "is empty: there is no text in it"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("beside", [False, True], ids=["a file", "a folder"])
def test_what_cannot_be_read_is_one_sentence(folder, case, beside):
    name, data, sentence = BAD[case]
    (folder / name).write_bytes(data)
    path = folder / name
    if beside:
        path = folder
        if not case.startswith("empty") or "parquet" in case:
            (folder / "good.jsonl").write_text(LINES)
    with pytest.raises(ValueError, match=sentence) as planned:
        corpus.fingerprint(str(path))
    assert "\n" not in str(planned.value)
    spec = DataSpec(corpus=str(path), corpus_sha256="0" * 64, tokenizer="gpt2:300")
    for use in (facts.describe, shards.prepare):
        with pytest.raises(ValueError) as raised:
            use(spec)
        assert str(raised.value) == str(planned.value), "the plan and the preparation say the same"


@pytest.mark.parametrize("path", ["", "no/such/folder", "~nobody-of-that-name/text"])
def test_text_that_is_not_there_is_one_sentence(path):
    with pytest.raises(ValueError, match="no such file or folder; give starter, or the path"):
        corpus.fingerprint(path)


def test_unreadable_files_are_counted_and_the_first_are_named(folder):
    for n in range(5):
        (folder / f"{n}.html").write_text("x")
    with pytest.raises(ValueError, match=r"0\.html, \S*1\.html, \S*2\.html and 2 more"):
        own.text_files(str(folder))


def test_links_are_followed_and_loops_are_refused(folder):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    plain(elsewhere)
    text = folder / "text"
    text.mkdir()
    (text / "linked").symlink_to(elsewhere)
    assert corpus.fingerprint(str(text)) == corpus.fingerprint(str(elsewhere))
    (elsewhere / "back").symlink_to(text)
    with pytest.raises(ValueError, match="a loop: remove that link"):
        corpus.fingerprint(str(text))


def test_a_file_that_cannot_be_opened_or_read_is_one_sentence(folder):
    itself = folder / "itself.txt"
    itself.symlink_to(itself)
    for path in (itself, folder):
        with pytest.raises(ValueError, match=r"itself\.txt cannot be read \(Too many levels"):
            corpus.fingerprint(str(path))
    (folder / "memory.txt").symlink_to("/proc/self/mem")  # a regular file whose first byte nobody can read
    with pytest.raises(ValueError, match=r"memory\.txt cannot be read \(Input/output error\)"):
        corpus.fingerprint(str(folder / "memory.txt"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_sentence(folder):
    plain(folder)
    (folder / "all.jsonl").chmod(0)
    with pytest.raises(ValueError, match=r"cannot be read .Permission denied"):
        corpus.fingerprint(str(folder))


def test_a_pipe_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(ValueError, match=r"pipe.txt, which is no text"):
        corpus.fingerprint(str(folder))


def test_a_folder_may_be_called_like_a_file(folder):
    named = folder / "x.txt"
    named.mkdir()
    plain(named)
    assert corpus.fingerprint(str(named)) == corpus.fingerprint(str(named / "all.jsonl"))
