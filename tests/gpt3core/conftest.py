"""What tests of the core share."""

import shutil
from pathlib import Path

import pytest

from gpt3core.model import native, products
from gpt3core.spec import RunSpec
from tests.gpt3core import corpora, finetuning, stores

built = pytest.mark.skipif(not any(map(shutil.which, native.COMPILERS)), reason="no C compiler")
onednn = pytest.mark.skipif(not products.there(), reason="this torch has no oneDNN")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSpec, RunSpec]:
    """A store to read or to copy from, a finished run of it, and one that was stopped."""
    return stores.train(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with text and one that was prepared from it."""
    place = tmp_path_factory.mktemp("made")
    path = corpora.write(place / "text")
    corpora.prepare(path, place / "out")
    return path, place / "out"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Built once for these tests, which have a cache of their own each."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ISOFLOP_CACHE", str(tmp_path_factory.mktemp("built")))
    native.library.cache_clear()
    native.library()
    patch.undo()


@pytest.fixture
def parent(store: tuple[Path, RunSpec, RunSpec], tmp_path: Path) -> tuple[Path, RunSpec]:
    """A store of the test's own, and a finished run in it, to be fine-tuned."""
    root, done, _ = store
    return stores.copied(root, tmp_path), done


@pytest.fixture
def labelled_files(tmp_path: Path) -> tuple[Path, Path]:
    """Labelled examples of two classes: what is trained on, and the questions."""
    train, test = finetuning.sentiments(96, 1), finetuning.sentiments(32, 2)
    return finetuning.write(tmp_path / "train.jsonl", train), finetuning.write(tmp_path / "test.jsonl", test)


@pytest.fixture
def choice_files(tmp_path: Path) -> tuple[Path, Path]:
    """Examples with two or three choices of their own: what is trained on, and the questions."""
    train, test = finetuning.choices(96, 1), finetuning.choices(32, 2)
    return finetuning.write(tmp_path / "train.jsonl", train), finetuning.write(tmp_path / "test.jsonl", test)


@pytest.fixture
def pair_files(tmp_path: Path) -> tuple[Path, Path]:
    """Pairs of texts, read in both orders: what is trained on, and the questions."""
    train, test = finetuning.pairs(96, 1), finetuning.pairs(32, 2)
    return finetuning.write(tmp_path / "train.jsonl", train), finetuning.write(tmp_path / "test.jsonl", test)
