"""What the whole command costs: CPU seconds and peak memory of ``python -m analysis.fit`` on 234 and on 10,000 runs.

The 234 are Hoffmann et al.'s; the 10,000 are drawn from a law of the same form, with 0.5% noise at random N and D.
Beside them stand the same with figures and what an interpreter spends on importing the libraries alone. Every command
is a process of its own, its modules compiled before as those of an installed package are. Medians of ``--repeats`` (3).

    python -m tests.benchmarks.fit_cost [--repeats=3]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.target import target

RUNS = Path(__file__).parents[2] / "analysis" / "reference" / "hoffmann2022_runs_234.csv"
IMPORTS = "import pandas, scipy.special, pyarrow.parquet, omegaconf, rich.table"


def drawn(count: int) -> pd.DataFrame:
    """Runs of a known law."""
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(1e7), np.log(1e10), count))
    d = n * np.exp(rng.uniform(np.log(2), np.log(200), count))
    loss = (1.8 + 480 / n**0.35 + 2100 / d**0.37) * np.exp(0.005 * rng.standard_normal(count))
    return pd.DataFrame({"N": n, "D": d, "loss": loss})


def cost(*command: str, compiled: str) -> tuple[float, float]:
    """CPU seconds, of user and system, and peak megabytes of a Python process; byte code lies in a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": compiled}
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Print the costs and the targets."""
    repeats = next((int(a.split("=")[1]) for a in sys.argv if a.startswith("--repeats=")), 3)
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "many.csv"
        drawn(10_000).to_csv(many, index=False)
        fit = ("-m", "analysis.fit", f"out={folder}/fit")
        cases = {
            "imports alone": ("-c", IMPORTS),
            "234 runs": (*fit, f"runs={RUNS}", "figures=false"),
            "with figures": (*fit, f"runs={RUNS}"),
            "10,000 runs": (*fit, f"runs={many}", "figures=false"),
        }
        cost(*cases["with figures"], compiled=folder)
        measured = {n: np.array([cost(*c, compiled=folder) for _ in range(repeats)]) for n, c in cases.items()}
    for name, rows in measured.items():
        seconds, memory = np.median(rows, axis=0)
        print(f"{name:14s} {seconds:6.2f} CPU-s  {memory:6.0f} MB   (each: {', '.join(f'{s:.2f}' for s, _ in rows)})")
    target("fit_234_cpu_seconds", float(np.median(measured["234 runs"][:, 0])), "<=", 2.0)
    target("fit_10000_cpu_seconds", float(np.median(measured["10,000 runs"][:, 0])), "<=", 15.0)
    target("fit_10000_megabytes", float(np.median(measured["10,000 runs"][:, 1])), "<=", 500.0)


if __name__ == "__main__":
    main()
