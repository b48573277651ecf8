"""What it costs to bring a corpus into its order: CPU seconds a document, at 10^4, 4 x 10^4, ... generated documents.

Parts are of 128 KB in place of 32 MB, so that the small corpus has 40 parts and the next one 160, as 1.3 and 5 GB have.
Only the stages before the filters run: reading into chunks, merging them into runs, gathering parts.

    python -m tests.benchmarks.data_order [--largest=160000]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpt3core.data.prepare import parts, pipeline, read, recipe, task, units
from gpt3core.data.prepare.task import Task
from tests.benchmarks.data_pipeline import SCALE_WORDS, documents, vocabulary
from tests.benchmarks.target import target

SMALLEST = 10_000
PART_BYTES = 1 << 17


def seconds(count: int, folder: Path) -> dict[str, float]:
    """CPU seconds of each stage."""
    texts, _ = documents(vocabulary(), ["-"], 0, count, SCALE_WORDS)
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "recipe.yaml").write_text(f"sources: {{text: {{path: {path}}}}}\n")
    asked = recipe.load([f"recipe={folder / 'recipe.yaml'}"])
    spent: dict[str, float] = {}

    def do(name: str, tasks: Sequence[Task]) -> None:
        began = time.process_time()
        for one in tasks:
            task.do(one)
        spent[name] = spent.get(name, 0.0) + time.process_time() - began

    made = pipeline.Prepared()
    found, work = units.units(asked), folder / "work"
    made.read = [work / unit.key for unit in found]
    do(
        "read",
        [Task(out=out, work=read.read, given={"unit": unit}) for unit, out in zip(found, made.read, strict=True)],
    )
    pipeline.gather(made, work, "key", do)
    return spent


def main() -> None:
    """Print the figures and the target."""
    options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:])
    parts.PART_BYTES = PART_BYTES
    costs, size = {}, SMALLEST
    while size <= int(options.get("largest", "160000")):
        with tempfile.TemporaryDirectory() as folder:
            spent = seconds(size, Path(folder))
        costs[size] = sum(spent.values()) / size
        stages = ", ".join(f"{name} {s:.2f} s" for name, s in spent.items())
        print(f"{size:,} documents: {costs[size] * 1e6:,.0f} us each; {stages}")
        size *= 4
    ran = 16 * SMALLEST in costs
    ratio = costs[16 * SMALLEST] / costs[4 * SMALLEST] if ran else None
    target("order_cost_of_a_document_16e4_x_4e4", ratio, "<=", 1.25)


if __name__ == "__main__":
    main()
