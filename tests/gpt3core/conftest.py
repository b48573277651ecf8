"""What tests of the core share."""

import shutil
from pathlib import Path

import pytest

from gpt3core.model import native
from gpt3core.spec import RunSpec
from tests.gpt3core import stores

built = pytest.mark.skipif(not any(map(shutil.which, native.COMPILERS)), reason="no C compiler")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSpec, RunSpec]:
    """A store to read or to copy from, a finished run of it, and one that was stopped."""
    return stores.train(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Built once for these tests, which have a cache of their own each."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ISOFLOP_CACHE", str(tmp_path_factory.mktemp("built")))
    native.library.cache_clear()
    native.library()
    patch.undo()
