"""Facts of a text without a download, a small recipe of every ladder, a small sweep on a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from gpt3core.data.facts import SourceFacts
from gpt3core.spec import DataSpec
from gpt3core.store.rundir import open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.driving import driver
from sweeps.planning import grid, recipe
from tests.conftest import write_corpus
from tests.sweeps.base_recipes import BASES
from tests.sweeps.fake_cluster import Clock


@dataclass
class Facts:
    """What the starter text has, in round figures: the plan asks gpt3core.data.facts, which counts a real one."""

    documents: int = 14_000
    train_tokens: int = 8_000_000
    validation_tokens: int = 500_000
    exact: bool = True

    def loss_resolution(self, validation_tokens: int, n_ctx: int) -> float:
        return 0.7 / (validation_tokens / n_ctx) ** 0.5

    def measured_tokens(self, validation_tokens: int, n_ctx: int) -> int:
        return min(validation_tokens, self.validation_tokens)

    def least_windows(self, validation_tokens: int, n_ctx: int) -> int:
        return self.measured_tokens(validation_tokens, n_ctx) // n_ctx

    @property
    def sources(self) -> dict[str, SourceFacts]:
        whole = SourceFacts(weight=1.0, train_tokens=self.train_tokens, validation_tokens=self.validation_tokens)
        return {"text": whole}


@pytest.fixture
def known_text(monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Facts that every text is said to have; a test may change them."""
    facts = Facts()

    def describe(data: DataSpec) -> Facts:
        """Of the whole text, the share that the specification holds out."""
        scale = data.validation_fraction / 0.06
        return Facts(facts.documents, facts.train_tokens, int(facts.validation_tokens * scale), facts.exact)

    monkeypatch.setattr("gpt3core.data.facts.describe", describe)
    return facts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the driver takes for ``time``."""
    found = Clock()
    monkeypatch.setattr(driver, "time", found)
    return found


@pytest.fixture
def smoke(isolated: Path, clock: Clock) -> tuple[recipe.Recipe, grid.Grid, Path]:
    """A recipe of four runs, its grid, and the root of a store."""
    chosen = recipe.load(["recipe=smoke"])
    return chosen, grid.build(chosen, "0" * 64), isolated / "root"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, and a store that has one more run under the name of the ladders' base recipes."""
    found = tmp_path_factory.mktemp("ladders")
    write_corpus(found / "one")
    write_corpus(found / "other", seed=1)
    (found / "items.jsonl").write_text(
        '{"context": "a =", "completion": " a"}\n{"context": "b =", "completion": " b"}\n'
    )
    (found / "root" / "sweeps" / "base").mkdir(parents=True)
    open_root(found / "root", create=True)
    SweepDir(found / "root", "base").write_record(SweepRecord(runs=("d8-forgotten",)))
    return found


@pytest.fixture
def base(folder, known_text, monkeypatch):
    """Writes a ladder's base recipe and gives the words that name it."""
    monkeypatch.setenv("ISOFLOP_ROOT", str(folder / "root"))

    def words(family):
        (folder / "base.yaml").write_text(BASES[family] + f"\n# {family}")
        return [f"recipe={folder / 'base.yaml'}", f"data.corpus={folder / 'one'}"]

    return words
