"""What tests of the core share."""

from pathlib import Path

import pytest

from gpt3core.spec import RunSpec
from tests.gpt3core import stores


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSpec, RunSpec]:
    """A store to read or to copy from, a finished run of it, and one that was stopped."""
    return stores.train(tmp_path_factory.mktemp("trained"))
