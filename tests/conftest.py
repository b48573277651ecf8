"""Fixtures: every test has a store and a cache of its own, and a small corpus of made-up English."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# threads of torch that wait spin: on a busy machine a test of two threads was seen to take 19 s of CPU in place of half
# a second; read when torch is first loaded
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# a worker of the tests has a core: threads of numpy's and torch's own would take one another's; before either is loaded
os.environ.setdefault("OMP_NUM_THREADS", "1")
# what commands print is as wide as where nobody says how wide; pytest-xdist tells its workers 80
os.environ.pop("COLUMNS", None)
# every Ray of the tests listens on loopback alone, mock clusters too; read when ray is first imported
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from gpt3core.data import corpus, shards
from gpt3core.data import tokenizer as tokenizers
from gpt3core.evals.spec import EvalSpec
from gpt3core.sizes import nano
from gpt3core.spec import DataSpec, OptimSpec, RunSpec

NOUNS = [
    "river",
    "mountain",
    "king",
    "garden",
    "winter",
    "letter",
    "bridge",
    "soldier",
    "window",
    "harbour",
    "morning",
    "village",
    "candle",
    "forest",
    "island",
]
VERBS = ["watches", "carries", "follows", "remembers", "builds", "crosses", "answers", "forgets", "gathers", "measures"]
PLACES = [
    "near the old mill",
    "beyond the northern gate",
    "under the quiet stars",
    "along the broken road",
    "before the great hall",
]


if TYPE_CHECKING:
    from analysis.study import Study


def sentence(rng: random.Random) -> str:
    """A grammatical, learnable sentence."""
    a, b = rng.sample(NOUNS, 2)
    return f"the {a} {rng.choice(VERBS)} the {b} {rng.choice(PLACES)}."


def write_corpus(folder: Path, documents: int = 400, seed: int = 0) -> Path:
    """A JSONL corpus of short documents."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tales.jsonl"
    lines = ('{"text": "' + " ".join(sentence(rng) for _ in range(12)) + '"}\n' for _ in range(documents))
    path.write_text("".join(lines))
    return path


MEMORY, ROOM = Path("/dev/shm"), 2 << 30  # a folder in memory, and the bytes that the tests may need there


def pytest_configure() -> None:
    """Keep the tests' folders in memory where there is room: the store syncs every write, and a disk takes its time.

    How long hypothesis takes for an example, or to draw one, says how busy the machine is, and fails nothing.
    """
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


# what starts a cluster or a browser: one process each when tests run in parallel, and first, for they take longest,
# before what starts a Ray of its own
TOGETHER = {"mock_cluster": "mock cluster", "head": "head"}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order and group the tests for pytest -n (which keeps the order by --no-loadscope-reorder)."""
    groups = {}
    for item in items:
        asked = getattr(item, "fixturenames", ())
        found = [group for fixture, group in TOGETHER.items() if fixture in asked]
        found += ["browser"] if item.path.parent.name == "browser" else []
        if found:
            groups[item] = found[0]
            item.add_marker(pytest.mark.xdist_group(found[0]))
    order = [*TOGETHER.values(), "browser", None]
    items.sort(key=lambda item: (order.index(groups.get(item)), item.get_closest_marker("cluster") is None))


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store and a cache of the test's own."""
    monkeypatch.setenv("ISOFLOP_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of simulated runs to read, or to copy from."""
    from tests.analysis.synthetic import make_store

    root = tmp_path_factory.mktemp("simulated") / "root"
    make_store(root, noise=0.002)
    return root


@pytest.fixture(scope="session")
def studied(simulated: Path) -> Study:
    """A fit to the simulated runs, to read."""
    from analysis import api

    return api.fit(simulated, bootstrap=50)


@pytest.fixture
def tales(tmp_path: Path) -> Path:
    """The path of a small corpus."""
    return write_corpus(tmp_path / "text")


@pytest.fixture
def tiny_run(tales: Path) -> RunSpec:
    """A run that trains in a second or two."""
    return make_run(tales)


def sides(path: Path | str, tokenizer: str = "gpt2:300", *, validation_fraction: float = 0.06) -> list[list[str]]:
    """The documents of a text as it is trained on, and held out."""
    spec = DataSpec(
        corpus=str(path),
        corpus_sha256=corpus.fingerprint(str(path)),
        tokenizer=tokenizer,
        validation_fraction=validation_fraction,
    )
    made, encoding = shards.prepare(spec), tokenizers.load(tokenizer)
    return [
        [
            text
            for stream in streams
            for piece in stream.pieces
            for text in encoding.decode(piece.tolist()).split(tokenizers.END_OF_TEXT)[:-1]
        ]
        for streams in (made.train, made.validation)
    ]


def make_run(text: Path, *, steps: int = 30, seed: int = 0, width: int = 16) -> RunSpec:
    """A small run on a corpus of one's own."""
    model = nano(width, n_layer=2, n_ctx=32, vocab_size=300, attention="alternating", band=4)
    tokens = steps * 128
    return RunSpec(
        model=model,
        data=DataSpec(
            corpus=str(text), corpus_sha256=corpus.fingerprint(str(text)), tokenizer="gpt2:300", validation_fraction=0.1
        ),
        optim=OptimSpec(lr=0.01, batch_tokens=128, warmup_tokens=tokens // 5, decay_tokens=tokens),
        tokens=tokens,
        seed=seed,
        precision="fp32",
        kernel="softmax",
    )


EVALS = EvalSpec(tasks=("addition_2",), shots=(0, 1), items=8, validation_tokens=2048)


@pytest.fixture
def free_port() -> int:
    """A port of the loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def at_once():
    """What waits is a failure."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for who writes"))
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
