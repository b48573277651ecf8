"""Megatron's indexed datasets, against the format as Megatron-LM's own reader takes it, and a round trip."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from gpt3core.data import corpus, megatron, shards, tokenizer
from gpt3core.errors import StoreError, UsageError
from gpt3core.spec import DataSpec


def spec(path, **changes):
    return DataSpec(
        **{"corpus": str(path), "corpus_sha256": corpus.fingerprint(str(path)), "tokenizer": "gpt2:300"} | changes
    )


def own_reader(prefix):
    """The documents by struct and numpy alone, as megatron.core.datasets.indexed_dataset reads them."""
    index, tokens = prefix.with_suffix(".idx").read_bytes(), prefix.with_suffix(".bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, limits = struct.unpack("<QBQQ", index[9:34])
    assert (version, code) == (1, 8)
    sizes = np.frombuffer(index, "<i4", sequences, 34)
    places = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    assert np.frombuffer(index, "<i8", limits, 34 + 12 * sequences).tolist() == list(range(sequences + 1))
    assert len(index) == 34 + 12 * sequences + 8 * limits
    return [np.frombuffer(tokens, "<u2", n, p).tolist() for n, p in zip(sizes, places, strict=True)]


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_documents_go_on_from_piece_to_piece(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(megatron, "CHUNK", chunk)
    pieces = [np.array(piece, dtype=np.uint16) for piece in ([1, 2, 9, 3], [4], [9, 9, 5, 6, 9, 7])]
    assert megatron.write(pieces, tmp_path / "a", end=9) == 5
    documents = [[1, 2, 9], [3, 4, 9], [9], [5, 6, 9], [7]]
    assert own_reader(tmp_path / "a") == documents
    assert [document.tolist() for document in megatron.read(tmp_path / "a")] == documents


def test_megatrons_own_reader_and_writer_agree(tmp_path, tales):
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")
    made, end = shards.prepare(spec(tales)), tokenizer.end_of_text("gpt2:300")
    megatron.write(made.train[0].pieces, tmp_path / "ours", end)
    theirs = indexed.IndexedDataset(str(tmp_path / "ours"))
    ours = list(megatron.read(tmp_path / "ours"))
    assert len(theirs) == len(ours) == made.total("documents")["train"]
    assert all(np.array_equal(a, theirs[k]) for k, a in enumerate(ours))
    import torch

    builder = indexed.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    for document in ours:
        builder.add_document(torch.from_numpy(document.astype(np.int64)), [3, len(document) - 3])
    builder.finalize(str(tmp_path / "theirs.idx"))
    assert all(np.array_equal(a, b) for a, b in zip(megatron.read(tmp_path / "theirs"), ours, strict=True))


def test_a_round_trip_by_the_commands_keeps_every_document(tales, tmp_path, capsys):
    text = ["tokenizer=gpt2:300", "validation_fraction=0.1"]
    assert megatron.main([f"corpus={tales}", f"out={tmp_path / 'mega'}", *text]) == 0
    assert "text-train.bin and .idx, " in capsys.readouterr().out
    pairs = ",".join(str(tmp_path / "mega" / f"text-{side}") for side in ("train", "validation"))
    assert megatron.main([f"indexed=[{pairs}]", f"out={tmp_path / 'again'}", *text]) == 0
    assert "data.corpus=" in capsys.readouterr().out
    made = shards.prepare(spec(tales, validation_fraction=0.1))
    again = shards.prepare(spec(tmp_path / "again", validation_fraction=0.1))
    assert list(again.sources) == ["text-train", "text-validation"]
    assert again.total("documents")["train"] > again.total("documents")["validation"] > 0
    for what in ("documents", "bytes", "tokens"):
        assert sum(again.total(what).values()) == sum(made.total(what).values())
    assert {d["domain"] for d in again.validation_documents} == {"text-train", "text-validation"}


def test_damaged_pairs_are_one_sentence(tmp_path):
    megatron.write([np.array([1, 2, 9], dtype=np.uint16)], tmp_path / "a", end=9)
    for path, keep, sentence in (
        ("a.bin", 4, "a.bin is shorter than .*a.idx says: bring a whole copy"),
        ("a.idx", 40, "a.idx has 40 bytes, its header says 62"),
        ("a.idx", 20, "a.idx is no index of Megatron's"),
    ):
        whole = (tmp_path / path).read_bytes()
        (tmp_path / path).write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=sentence):
            list(megatron.read(tmp_path / "a"))
        (tmp_path / path).write_bytes(whole)
    with pytest.raises(ValueError, match=r"b.idx: no such file"):
        list(megatron.read(tmp_path / "b"))
    with pytest.raises(ValueError, match="tokens 1 to 2000, and gpt2:300 has 0 to 298: name the tokenizer"):
        megatron.write([np.array([1, 2000, 9], dtype=np.uint16)], tmp_path / "c", end=9)
        megatron.main([f"indexed=[{tmp_path / 'c'}]", f"out={tmp_path / 'out'}", "tokenizer=gpt2:300"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "out=DIR and one of corpus=... and indexed="),
        (["out=x", "corpus=starter", "indexed=[a]"], "out=DIR and one of"),
        (["out=.", "corpus=starter"], "there is something already: name a new folder"),
        (["out=x", "corpus=starter", "validation_fraction=2"], "must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(words, sentence, tmp_path, monkeypatch):
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        megatron.main(words)


def test_a_folder_that_cannot_be_made_is_said_by_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="name a writable folder by out="):
        megatron.main(["corpus=starter", f"out={tmp_path / 'file' / 'x'}"])


def test_a_prepared_folder_is_that_content_wherever_it_lies(tales, tmp_path):
    """The folder that the commands make: named by its content, refused where it is another, or not as specified."""
    text = ["tokenizer=gpt2:300", "validation_fraction=0.1"]
    megatron.main([f"corpus={tales}", f"out={tmp_path / 'mega'}", *text])
    megatron.main([f"indexed=[{tmp_path / 'mega' / 'text-train'}]", f"out={tmp_path / 'one'}", *text])
    here = spec(tmp_path / "one", validation_fraction=0.1)
    (tmp_path / "one").rename(tmp_path / "moved")
    there = spec(tmp_path / "moved", validation_fraction=0.1)
    assert there.corpus_sha256 == here.corpus_sha256
    assert shards.prepare(there).folder == tmp_path / "moved"
    with pytest.raises(ValueError, match="was specified on 000000000000"):
        shards.prepare(replace(there, corpus_sha256="0" * 64))
    for change, sentence in (
        ({"tokenizer": "gpt2"}, "data.tokenizer=gpt2: .* was prepared with gpt2:300; give data.tokenizer=gpt2:300"),
        ({"validation_fraction": 0.06}, "data.validation_fraction=0.06: .* was prepared with 0.1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            shards.prepare(replace(there, **change))
    path = tmp_path / "moved" / "text-train" / "train-00000.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"train-00000.npy is damaged .* bring a sound copy"):
        shards.prepare(there)
