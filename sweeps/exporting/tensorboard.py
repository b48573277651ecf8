"""TensorBoard: a folder of event files a run, which grow; one event a step, so a killed export leaves no half step.

What is there is read from the event files themselves. A run that went back (anomaly.policy=rollback) is written anew.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from sweeps.exporting.reading import Exported

FILES = "events.out.tfevents.*"
FOUND_BY = "run"  # the tag of a run's tags and configuration as text


class TensorBoard:
    """Writes OUT/<run_id>/events.out.tfevents.*."""

    def __init__(self, out: Path, sweep: str) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise StoreError("to=tensorboard needs tensorboardX: pip install 'isoflop[tensorboard]'") from error
        self._out, self._x = out, tensorboardX

    def write(self, run: Exported, *, anew: bool) -> None:
        """Add the steps and scores that the event files do not have."""
        folder = self._out / run.run_id
        if anew:
            shutil.rmtree(folder, ignore_errors=True)
        there = {(event.step, value.tag) for event in _events(folder) for value in event.summary.value}
        last = max((step for step, tag in there if tag.startswith("train/")), default=0)
        later = [i for i, step in enumerate(run.steps) if step > last]
        final = {tag: value for tag, value in run.final.items() if (self._end(run), tag) not in there}
        told = any(tag.startswith(FOUND_BY) for _, tag in there)
        if not later and not final and told:
            return
        folder.mkdir(parents=True, exist_ok=True)
        # names have seconds: files of one second need an order of their own
        number = len(list(folder.glob(FILES)))
        writer = self._x.FileWriter(str(folder), filename_suffix=f".{number:06d}")
        try:
            if not told:
                self._describe(writer, run)
            for i in later:
                writer.add_summary(self._scalars(run.row(i)), run.steps[i], run.started)
            if final:
                writer.add_summary(self._scalars(final), self._end(run), run.started)
        finally:
            writer.close()

    def close(self) -> None:
        """Nothing is open."""

    @staticmethod
    def _end(run: Exported) -> int:
        return run.steps[-1] if run.steps else 0

    def _describe(self, writer: Any, run: Exported) -> None:
        """Tags and configuration: as text, and as hyperparameters of the HPARAMS page."""
        text = json.dumps({**run.tags, "status": "see final/", "config": run.config}, indent=1)
        writer.add_summary(self._x.summary.text(FOUND_BY, f"```\n{text}\n```"), 0, run.started)
        known = {name: value for name, value in run.config.items() if value is not None}
        for part in self._x.summary.hparams(known, {"final/loss": 0.0}):
            writer.add_summary(part, 0, run.started)

    def _scalars(self, values: dict[str, float]) -> Any:
        kind = self._x.proto.summary_pb2.Summary
        return kind(value=[kind.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def _events(folder: Path) -> Iterator[Any]:
    """The whole events of a folder; a torn last one, of a killed export, is passed over."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob(FILES)):
        data, place = path.read_bytes(), 0
        while place + 12 <= len(data):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", data, place)
            if place + 16 + length > len(data):
                break
            yield Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
