"""Files as streams of documents: lines against Python's own splitting, stretches, encodings, archives, limits."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import lzma
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3core.data.sources import examples, formats, hub, packages, streams, walk
from gpt3core.data.sources.formats import Span
from gpt3core.data.sources.record import Bad, DamagedError, Reading, Record
from gpt3core.store import files
from tests.gpt3core import corpora

REPAIR = Reading(encoding="repair")


def found(path: Path, how: Reading = REPAIR, span: Span = formats.WHOLE) -> list[Record | Bad]:
    return list(formats.records(path, how, span))


@given(st.lists(st.binary(max_size=12)), st.none() | st.integers(1, 10))
def test_lines_are_those_of_a_split_wherever_blocks_end(blocks, most):
    whole = b"".join(blocks)
    expected, place = [], 0
    for line in whole.split(b"\n"):
        expected.append((place, line))
        place += len(line) + 1
    if not expected[-1][1]:
        expected.pop()
    got = list(streams.lines(blocks, most))
    assert [at for at, _, _ in got] == [at for at, _ in expected]
    for (_, line, complete), (_, real) in zip(got, expected, strict=True):
        assert complete == (most is None or len(real) <= most)
        assert line == real if complete else real.startswith(line)


@settings(max_examples=25)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=12), st.lists(st.integers(1, 300), max_size=4))
def test_stretches_of_a_file_have_each_line_once(tmp_path_factory, texts, cuts):
    path = tmp_path_factory.mktemp("spans") / "x.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    size = path.stat().st_size
    bounds = sorted({0, size, *(cut for cut in cuts if cut < size)})
    spans = [Span(start=a, end=b) for a, b in itertools.pairwise(bounds)]
    assert [record for span in spans for record in found(path, span=span)] == found(path)
    assert [record.text for record in found(path)] == [text for text in texts if text.strip()]


def test_a_line_past_the_limit_is_passed_over_and_not_held(tmp_path):
    path = tmp_path / "x.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text": "before"}\n')
        file.truncate(64_000_000)  # a hole: one line of zero bytes
        file.seek(0, 2)
        file.write(b'\n{"text": "after"}\n')
    tracemalloc.start()
    got = found(path, Reading(most_bytes=1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [record.text for record in got if isinstance(record, Record)] == ["before", "after"]
    assert [bad.said for bad in got if isinstance(bad, Bad)] == [
        "line 2 is longer than 1000000 bytes, which no document is: split it, or prepare the text with a higher "
        "bad.longest_mb"
    ]
    assert peak < 8_000_000


def test_a_plain_text_past_the_limit_is_cut_at_ends_of_lines(tmp_path):
    lines = [f"line {n} é" for n in range(500)]
    (tmp_path / "x.txt").write_text("\n".join(lines), encoding="utf-8")
    got = [record.text for record in found(tmp_path / "x.txt", Reading(most_bytes=1000))]
    assert len(got) > 4
    assert "".join(got) == "\n".join(lines)
    assert all(len(text.encode()) <= 1000 and text.startswith("line ") for text in got)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("x.jsonl", '{"text": "café"}\n'.encode("utf-16"), "café"),
        ("x.jsonl", '{"text": "café"}\n'.encode("utf-32"), "café"),
        ("x.txt", "café".encode("utf-16"), "café"),
        ("x.jsonl", b'{"text": "caf\xe9 \x93so\x94"}\n', "café “so”"),
        ("x.txt", b"caf\xe9", "café"),
        ("x.txt", b"ca\x00fe", "cafe"),
        ("x.jsonl", b'{"text": "a\\ud800b"}\n', "a�b"),
        ("x.jsonl", b'{"text": "\\ud83d\\ude00"}\n', "\U0001f600"),
    ],
)
def test_other_encodings_are_repaired_or_rejected_by_rule(tmp_path, name, data, text):
    (tmp_path / name).write_bytes(data)
    (record,) = found(tmp_path / name)
    assert record.text == text
    strict = found(tmp_path / name, Reading())
    if text != "\U0001f600":  # a whole pair is a character
        assert [type(bad) for bad in strict] == [Bad]
        assert strict[0].kind in ("encoding", "damaged")
    assert record.repaired == (text != "\U0001f600")


def test_what_lies_before_damage_is_read(tmp_path):
    lines = "".join(json.dumps({"text": f"{n} " * 50}) + "\n" for n in range(3000)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "STEP_BYTES", 4096)
        for ending, packed in ((".gz", gzip.compress(lines)), (".xz", lzma.compress(lines))):
            (tmp_path / f"x.jsonl{ending}").write_bytes(packed[: len(packed) * 2 // 3])
            *before, last = found(tmp_path / f"x.jsonl{ending}")
            assert len(before) > 1000
            assert last.kind == "damaged"
            assert sum(isinstance(bad, Bad) for bad in before) <= 1, "the torn line"


def test_plain_text_before_damage_is_read_up_to_its_last_whole_character(tmp_path):
    text = "".join(f"{n}é😀\n" for n in range(30_000))
    packed = gzip.compress(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "STEP_BYTES", 4096)
        for cut in range(5):  # through characters too
            (tmp_path / "x.txt.gz").write_bytes(packed[: len(packed) // 2 + cut])
            record, bad = found(tmp_path / "x.txt.gz", Reading())
            assert text.startswith(record.text)
            assert len(record.text) > len(text) // 4
            assert bad.kind == "damaged"


def test_plain_text_that_is_cut_in_any_character_has_no_bad_end():
    def torn(at):
        yield "aé😀".encode()[:at]
        raise DamagedError("is torn")

    for at, left in enumerate(["", "", "a", "a", "aé", "aé", "aé", "aé"]):
        pieces = formats._text(torn(at), Reading())
        assert [record.text for record in itertools.islice(pieces, bool(left))] == [left] * bool(left)
        with pytest.raises(DamagedError):
            next(pieces)


def archive(kind: str, content_type: str, pages: list[bytes]) -> bytes:
    warcwriter = pytest.importorskip("warcio.warcwriter")
    from warcio.statusandheaders import StatusAndHeaders

    sink = io.BytesIO()
    writer = warcwriter.WARCWriter(sink, gzip=True)
    http = StatusAndHeaders("200 OK", [("Content-Type", content_type)], protocol="HTTP/1.1")
    for number, page in enumerate(pages):
        words = {"http_headers": http} if kind == "response" else {"warc_content_type": content_type}
        record = writer.create_warc_record(f"http://x/{number}", kind, payload=io.BytesIO(page), **words)
        writer.write_record(record)
    return sink.getvalue()


def test_pages_of_wet_and_warc(tmp_path):
    pages = [f"page {n} ".encode() * 500 for n in range(4)]
    packed = archive("conversion", "text/plain", pages)
    path = tmp_path / "x.warc.wet.gz"
    path.write_bytes(packed)
    how = Reading(id="WARC-Target-URI")
    assert [(r.id, r.text.encode()) for r in found(path, how)] == [(f"http://x/{n}", p) for n, p in enumerate(pages)]
    path.write_bytes(packed[: len(packed) * 5 // 8])
    got = found(path, how)
    assert [record.text.encode() for record in got[:-1]] == pages[:2]
    assert got[-1].said.startswith("is not a whole WARC file")
    (tmp_path / "y.warc").write_bytes(b"no archive " * 100)
    assert [bad.kind for bad in found(tmp_path / "y.warc", how)] == ["damaged"]


def test_html_of_warc(tmp_path):
    pytest.importorskip("resiliparse")
    page = "<html><head><script>no()</script></head><body><p>Un café très noir, dit-elle.</p></body></html>"
    (tmp_path / "x.warc.gz").write_bytes(archive("response", "text/html; charset=latin-1", [page.encode("latin-1")]))
    assert [record.text for record in found(tmp_path / "x.warc.gz")] == ["Un café très noir, dit-elle."]
    (tmp_path / "y.warc.gz").write_bytes(archive("response", "image/png", [b"\x89PNG"]))
    assert found(tmp_path / "y.warc.gz") == []


def test_patterns_and_folders(tmp_path):
    for name in ("a1.txt", "a2.jsonl", "b.txt", ".a3.txt"):
        (tmp_path / name).write_text("x")
    assert [path.name for path in walk.files(f"{tmp_path}/a*", "it", "give")] == ["a1.txt", "a2.jsonl"]
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"it has .*a.csv, which is no text that can be read"):
        walk.files(f"{tmp_path}/a*", "it", "give")


def test_the_markup_of_a_page_goes_and_its_menus_stay():
    reader = packages._Seen()
    reader.feed("<title>t</title><ul><li>Home</li></ul><style>p{}</style><p>Parsing &amp; <b>more</b></p>")
    assert "".join(reader.seen) == "HomeParsing & more"


def test_a_data_set_by_its_folder(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"text": "one", "n": 1}\n{"text": "two", "n": 2}\n')
    got = list(hub.records(f"{tmp_path}\n\ntrain\n", Reading(id="n")))
    assert [(record.id, record.text) for record in got] == [("1", "one"), ("2", "two")]
    with pytest.raises(ValueError, match="train, has no column body but text, n: name one by text="):
        list(hub.records(f"{tmp_path}\n\ntrain\n", Reading(text="body")))
    with pytest.raises(ValueError, match=r"split test, cannot be read \(.*\): check its name, config and split"):
        list(hub.records(f"{tmp_path}\n\ntest\n", Reading()))


class Library(ModuleType):
    """What is asked of the package datasets, which streams some rows and then fails."""

    def __init__(self, rows, error=None):
        super().__init__("datasets")
        self.rows, self.error, self.asked = rows, error, []

    def load_dataset(self, *args, **kwargs):
        self.asked.append((args, kwargs))
        yield from self.rows
        if self.error:
            raise self.error


def test_a_data_set_is_streamed_by_its_name_config_split_and_revision(monkeypatch):
    library = Library([{"body": "one", "n": 7}, {"body": None, "n": 8}, {"body": "two", "n": 9}])
    monkeypatch.setitem(sys.modules, "datasets", library)
    one, bad, two = hub.records("owner/set\nen\nvalidation\nv1", Reading(text="body", id="n"))
    assert (one, two) == (Record(id="7", text="one"), Record(id="9", text="two"))
    assert (bad.kind, bad.said) == ("text", "row 2: its text is null, a string is needed: mend or remove it")
    assert library.asked == [(("owner/set", "en"), {"split": "validation", "revision": "v1", "streaming": True})]


@pytest.mark.parametrize("rows", [[], [{"text": "one"}]])
def test_without_a_network_a_data_set_is_one_sentence(monkeypatch, tmp_path, rows):
    class UnreachableError(Exception):  # of whatever client the library has
        pass

    library = Library(rows, UnreachableError("Couldn't reach\n'owner/set' on the Hub"))
    monkeypatch.setitem(sys.modules, "datasets", library)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("tokenizer: gpt2:300\nsources: {set: {dataset: owner/set}}\n")
    sentence = (
        r"^the data set owner/set, split train, cannot be read \(Couldn't reach 'owner/set' on the Hub\): check its "
        "name, config and split, and the network, or bring its files and give their folder in place of its name$"
    )
    with pytest.raises(ValueError, match=sentence):
        corpora.prepare(recipe, tmp_path / "out")
    library.error = None
    library.rows = [{"text": f"text number {n} " * 9} for n in range(40)]
    corpora.prepare(recipe, tmp_path / "out")  # the same command goes on
    assert sum(1 for _ in files.read_lines(tmp_path / "out" / "set" / "documents.jsonl"))


def test_without_the_library_a_data_set_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'read by the package datasets: pip install "isoflop\[datasets\]"'):
        list(hub.records("owner/set\n\ntrain\n", Reading()))


@pytest.mark.parametrize(("name", "content"), [("a.txt", "who ran?\n"), ("a.jsonl", '{"question": "who ran?"}\n')])
def test_a_byte_order_mark_is_no_part_of_an_evaluation_set(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8-sig")
    assert examples.texts(path) == ["who ran?"]
