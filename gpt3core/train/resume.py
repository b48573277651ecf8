"""Where a run starts: its numerics, and its newest sound checkpoint, its trunk's, its parent's, or fresh weights.

Rank 0 says which, and the others do just that or all stop: no rank ever trains from a state of its own.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from gpt3core.errors import StoreError
from gpt3core.numerics import AUTO, COMPILED, COMPILES, KERNELS, PRECISIONS, Numerics
from gpt3core.parallel.layout import halved, largest_divisor
from gpt3core.parallel.memory import micro_batch, require_room
from gpt3core.parallel.mesh import Mesh
from gpt3core.parallel.parts import part_of
from gpt3core.spec import RunSpec, explain
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, compiling, spent, timing, weights
from gpt3core.train.process import device_memory
from gpt3core.trunk import Prefix, steps_in_common

VISIBLE_SECONDS = 60.0  # until a file written on one node must be seen on the others (network file systems)
CARRIED = ("anomaly", "loss_scale")  # what decides about later steps, beside tensors: a child has its parent's
STATE = ("step", *spent.KEPT, "first_step", "trunk", "observed", *CARRIED)  # of a run, beside its tensors
OF_THE_MODEL = ("model.", "data.tokenizer")  # what a child has of its parent, whether it masks documents or not
ARITHMETIC = ("precision", "kernel", "threads", "compile")  # what a run keeps for all its attempts


# ----------------------------------------------------------------------------------------------------------- numerics


def arithmetic(
    run: RunDir,
    spec: RunSpec,
    suggested: Numerics | None,
    threads: int,
    device: str,
    prefix: Prefix | None = None,
    mesh: Mesh | None = None,
    halvings: int = 0,
) -> tuple[dict[str, Any], list[str]]:
    """Precision, kernel, threads, compilation and micro-batch of a run, and a sentence for what was found damaged.

    They are chosen once and recorded: each changes the last bits, so a resumed run keeps them, and one that starts from
    another's checkpoint takes its. A micro-batch for which memory did not do is halved, once for each of ``halvings``,
    and stays so.

    Raises:
        StoreError: when the record is damaged, and the attempts do not tell either what it said.
        ValueError: when no micro-batch fits the device.
    """
    path, problem, damage = run.path / "numerics.json", "", []
    try:
        record = files.read_object(path)
        kept = _under_layout(_valid(record), spec, device, mesh or Mesh(), halvings)
        if kept.get("halvings", 0) != record.get("halvings", 0):
            files.write_json(path, {**record, **kept})
        return kept, []
    except FileNotFoundError:
        problem = "is missing" if run.checkpoint_steps() else ""
    except (StoreError, ValueError) as error:
        problem = f"is damaged ({error})"
    chosen = _told_by_attempts(run) if problem else _of_the_trunk(run, spec, prefix)
    if chosen is None and run.checkpoint_steps():
        raise StoreError(
            f"run {run.run_id}: numerics.json {problem}, and no attempt logged what it said: bring it back from a "
            f"copy, or move {run.path} away to train the run anew"
        )
    if problem:
        aside = f"; it was set aside as {files.set_aside(path)}" if path.exists() else ""
        damage.append(f"run {run.run_id}: numerics.json {problem}{aside}, and was written again, but check that disk")
    if chosen is None:
        chosen = _choose(spec, suggested, threads, device, mesh or Mesh())
    chosen = _under_layout(chosen, spec, device, mesh or Mesh(), halvings)
    record = {**chosen, "machine": timing.machine(device), "torch": torch.__version__}
    files.write_json(path, record, fence=run.fence)
    return chosen, damage


def _choose(spec: RunSpec, suggested: Numerics | None, threads: int, device: str, mesh: Mesh) -> dict[str, Any]:
    """The arithmetic of a run that has none yet, by the suggestion where it is possible."""
    numerics = suggested
    if (
        numerics is None
        or not numerics.satisfies(spec.precision, spec.kernel)
        or not timing.possible(numerics, device)
        or numerics.kernel in timing.excluded(spec)
    ):
        numerics = timing.choose(spec.model, spec.precision, spec.kernel, device, without=timing.excluded(spec))
    numerics, compiled = compiling.choose(spec, numerics, device, threads, mesh.layout)
    return {**vars(numerics), "threads": threads, "compile": compiled}


def _under_layout(chosen: dict[str, Any], spec: RunSpec, device: str, mesh: Mesh, halvings: int = 0) -> dict[str, Any]:
    """The arithmetic with the micro-batch of its record, or of the rule where there is none yet.

    It is in sequences, or in labelled examples of ``spec.unit_tokens``.

    What is compiled stays so where the layout allows it: another one has other last bits in any case.
    """
    chosen = {**chosen, "compile": mesh.layout.compiles(chosen["compile"])}
    words: dict[str, Any] = {
        "sequences": max(1, spec.optim.ramp.start // spec.model.n_ctx),  # later batches are multiples of the first
        "numerics": spec.options.kept(Numerics(precision=chosen["precision"], kernel=chosen["kernel"])),
        "memory_bytes": device_memory(device),
    }
    if mesh.planned:  # a layout says it: another layout, another micro-batch
        if words["memory_bytes"] is not None:  # the device may be another than the one that was planned for
            require_room(spec.model, mesh.layout, **words)
        return {**chosen, "micro_batch": mesh.layout.micro_batch}
    if "micro_batch" in chosen:
        size = chosen["micro_batch"]
    else:
        size = max(1, micro_batch(spec.model, mesh.layout, **words) * spec.model.n_ctx // spec.unit_tokens)
        if chosen["compile"] in COMPILED and spec.optim.ramp_start:  # each number of rows would be compiled for itself
            size = largest_divisor(max(1, spec.optim.ramp.start // spec.unit_tokens // mesh.layout.data), size)
    if (more := halvings - chosen.get("halvings", 0)) > 0:
        rows = spec.optim.batch_tokens // spec.unit_tokens // mesh.layout.data  # a replica has no more at a time
        return {**chosen, "micro_batch": halved(min(size, rows), more), "halvings": halvings}
    return {**chosen, "micro_batch": size}


def _valid(record: dict[str, Any]) -> dict[str, Any]:
    """The arithmetic of a record, or ValueError; the micro-batch only where it has one."""
    found = {name: record.get(name, "none" if name == "compile" else None) for name in ARITHMETIC}  # old ones lack it
    if (size := record.get("micro_batch")) is not None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"it says micro_batch={size!r}")
        found["micro_batch"] = size
    if (times := record.get("halvings", 0)) != 0:
        if isinstance(times, bool) or not isinstance(times, int) or times < 0:
            raise ValueError(f"it says halvings={times!r}")
        found["halvings"] = times
    known = (("precision", PRECISIONS), ("kernel", KERNELS), ("compile", COMPILES))
    sound = all(found[name] in allowed for name, allowed in known) and AUTO not in found.values()
    if not sound or not isinstance(found["threads"], int) or found["threads"] < 1:
        raise ValueError(f"it says {found}")
    return found


def _of_the_trunk(run: RunDir, spec: RunSpec, prefix: Prefix | None) -> dict[str, Any] | None:
    """The arithmetic of the run that did the first steps, where it is known and allowed."""
    if prefix is None:
        return None
    try:
        trunk = _other(run, prefix.run_id)
        trunk.refresh()
        found = _valid(files.read_object(trunk.path / "numerics.json"))
    except (OSError, StoreError, ValueError):
        return None
    allowed = Numerics(precision=found["precision"], kernel=found["kernel"]).satisfies(spec.precision, spec.kernel)
    return found if allowed and spec.compile in (AUTO, found["compile"]) else None


def _other(run: RunDir, run_id: str) -> RunDir:
    """Another run of the same store."""
    return RunDir(run.root, run_id)


def _told_by_attempts(run: RunDir) -> dict[str, Any] | None:
    """The arithmetic that the newest attempt logged at its start."""
    for attempt in reversed(run.attempts()):
        for event in files.read_lines(attempt / "events.jsonl"):
            try:
                return _valid(event)
            except ValueError:
                continue
    return None


# -------------------------------------------------------------------------------------------------------------- state


def restore(
    run: RunDir,
    spec: RunSpec,
    model: Any,
    optimizer: torch.optim.Optimizer,
    mesh: Mesh,
    prefix: Prefix | None = None,
    at_most: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Put the newest sound checkpoint (the run's, its trunk's, its parent's) or fresh weights into all ranks' models.

    Args:
        at_most: the last step that it may be of.

    Returns:
        ``step`` and ``train_seconds`` so far, what else was spent where it was kept, ``first_step`` that this run did
        itself, the ``trunk`` it began from, what it has ``observed`` of itself (a state by observer), and what was kept
        of anomalies; and a sentence for each checkpoint that was found damaged by any rank.

    Raises:
        StoreError: when the parent's checkpoint is missing, damaged or of another shape, or the ranks differ.
        TimeoutError, PeerError: when some rank does not see what rank 0 sees.
    """
    damage: list[str] = []
    while True:
        step = mesh.first(lambda: _newest(run, at_most))
        if step is None and prefix is not None:
            begun = _branch(run, spec, model, optimizer, mesh, prefix)
            if not isinstance(begun, str):
                state = begun
                break
            damage.append(begun)
        if step is None:
            state = _begin(run, spec, model, optimizer, mesh)
            break
        loaded = mesh.each(lambda step=step: _try_load(run, spec, step, model, optimizer, mesh))  # type: ignore[misc]
        if found := [(rank, problem) for rank, problem in enumerate(loaded) if isinstance(problem, str)]:
            rank, problem = found[0]
            reason = problem if mesh.world_size == 1 else f"seen by rank {rank}: {problem}"
            damage.append(mesh.first(lambda step=step, reason=reason: run.set_checkpoint_aside(step, reason)))  # type: ignore[misc]
        else:
            assert not isinstance(loaded[0], str)
            state = loaded[0]
            break
    _require_equal(model, optimizer, mesh)
    return state, damage


def _newest(run: RunDir, at_most: int | None) -> int | None:
    """The step of a run's last checkpoint, of those up to a step."""
    return max((step for step in run.checkpoint_steps() if at_most is None or step <= at_most), default=None)


def _try_load(
    run: RunDir, spec: RunSpec, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, mesh: Mesh
) -> dict[str, Any] | str:
    """Load a checkpoint of this run; step and seconds, or what is wrong with it."""
    folder = run.fetch_checkpoint(step)
    _wait_until_seen(run, step, mesh)
    try:
        contents = checkpoint.read(folder, run.run_id, model)
        checkpoint.load(contents, model, optimizer)
    except checkpoint.DamageError as error:
        return str(error)
    known: dict[str, Any] = {"first_step": spec.first_step, "trunk": None, "observed": {}}
    return {**known, **{n: v for n, v in contents.state.items() if n in STATE}}


def _wait_until_seen(run: RunDir, step: int, mesh: Mesh) -> None:
    """Wait for what rank 0 sees: another node's listing may be old."""
    until = time.monotonic() + VISIBLE_SECONDS
    while mesh.rank > 0 and not (folder := run.fetch_checkpoint(step)).exists():
        if time.monotonic() > until:
            raise TimeoutError(
                f"rank 0 resumes from {folder}, which is not seen here after {VISIBLE_SECONDS:g} s: do all nodes share "
                "this file system? nothing was trained, trying again is safe"
            )
        time.sleep(0.2)


def _branch(
    run: RunDir, spec: RunSpec, model: Any, optimizer: torch.optim.Optimizer, mesh: Mesh, prefix: Prefix
) -> dict[str, Any] | str:
    """Start where another run has done the first steps alike; a sentence where that cannot be."""
    trunk = _other(run, prefix.run_id)
    mesh.first(trunk.refresh)
    if mesh.first(lambda: steps_in_common(spec, trunk.spec())) < prefix.step:
        raise StoreError(
            f"run {run.run_id} does not begin as {prefix.run_id} does up to step {prefix.step}, so it cannot start "
            "from there: nothing was trained"
        )
    observed: Any = {}
    problem = mesh.first(lambda: "" if trunk.checkpoint(prefix.step).exists() else "it is not there")
    if not problem:
        loaded = mesh.each(lambda: _try_load(trunk, spec, prefix.step, model, optimizer, mesh))
        problem = next((found for found in loaded if isinstance(found, str)), "")
        observed = {} if problem else loaded[0]["observed"]  # type: ignore[index]
    if problem:
        return (
            f"run {run.run_id} could not start from step {prefix.step} of {prefix.run_id} ({problem}) and did these "
            "steps itself: the result is not affected, but check that disk"
        )
    begun = {"step": prefix.step, "train_seconds": 0.0, "first_step": prefix.step, "trunk": str(prefix)}
    return {**_carried(loaded[0]), **begun, "observed": observed}


def _carried(state: Any) -> dict[str, Any]:
    """What a run takes over of another's state, beside tensors."""
    return {name: state[name] for name in CARRIED if name in state}


def _begin(run: RunDir, spec: RunSpec, model: Any, optimizer: torch.optim.Optimizer, mesh: Mesh) -> dict[str, Any]:
    """Start from the parent's checkpoint, or from fresh weights."""
    optimizer.state.clear()  # of a checkpoint that another rank found damaged
    if spec.parent is None:
        model.init_weights(spec.seed, part_of)
        return {"step": 0, "train_seconds": 0.0, "first_step": 0, "trunk": None, "observed": {}}
    if spec.labelled is not None:
        model.init_weights(spec.seed, part_of)  # of what the parent does not have
        mesh.together(lambda: weights.take(run, spec, model))
        return {"step": 0, "train_seconds": 0.0, "first_step": 0, "trunk": None, "observed": {}}
    carried = mesh.together(lambda: _load_parent(run, spec, model, optimizer))
    step = spec.parent.step
    return {**carried, "step": step, "train_seconds": 0.0, "first_step": step, "trunk": None, "observed": {}}


def _load_parent(run: RunDir, spec: RunSpec, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load the parent's checkpoint; what is carried over from its state."""
    assert spec.parent is not None
    step = spec.parent.step
    parent = _other(run, spec.parent.run_id)
    parent.refresh()
    folder = parent.fetch_checkpoint(step)
    if not folder.exists():
        kept = ", ".join(map(str, parent.checkpoint_steps())) or "none"
        raise StoreError(
            f"run {run.run_id} goes on from step {step} of {parent.run_id}, and {folder} is not there "
            f"(checkpoints of it: {kept}): train the parent to that step first, or name one of these steps"
        )
    _check_parent(run, spec, parent)
    try:
        contents = checkpoint.read(folder, parent.run_id, model)
        checkpoint.load(contents, model, optimizer)
    except (checkpoint.DamageError, StoreError) as error:
        raise StoreError(
            f"run {run.run_id} cannot go on from step {step} of {parent.run_id}: {error}; restore {folder} from a "
            "copy, or name another parent"
        ) from error
    return _carried(contents.state)


def _check_parent(run: RunDir, spec: RunSpec, parent: RunDir) -> None:
    """Refuse a parent from which a run cannot go on.

    Raises:
        StoreError: in one sentence.
    """
    assert spec.parent is not None
    step, there = spec.parent.step, parent.spec()
    if differing := [
        line for line in explain(there, spec) if line.startswith(OF_THE_MODEL) and "document_end" not in line
    ]:
        raise StoreError(
            f"run {run.run_id} is another model than its parent {parent.run_id} ({'; '.join(differing)}), to which the "
            "parent's weights mean something else: give both the same, or name another parent"
        )
    before, now = there.data, spec.data
    if before.corpus_sha256 == now.corpus_sha256 and before.validation_fraction != now.validation_fraction:
        raise StoreError(
            f"run {run.run_id} holds out {now.validation_fraction:g} of the text and its parent {parent.run_id} "
            f"{before.validation_fraction:g}, so the parent trained on some of what this one measures its loss on: "
            "give both the same data.validation_fraction"
        )
    if there.optim.ramp != spec.optim.ramp:
        raise StoreError(
            f"run {run.run_id} has batches of {spec.optim.batch_tokens} tokens and its parent {parent.run_id} of "
            f"{there.optim.batch_tokens}, or another ramp to them: step {step} would be another place in the text; "
            "give both the same optim.batch_tokens, ramp_start and ramp_tokens"
        )
    if there.anomaly.policy == "rollback" and not parent.trained:
        raise StoreError(
            f"run {run.run_id} goes on from step {step} of {parent.run_id}, which may yet roll back to before it "
            "(anomaly.policy=rollback): train the parent to its end first"
        )
    if step >= spec.steps:
        raise StoreError(
            f"run {run.run_id} has {spec.steps} steps and would go on from step {step} of its parent: give more tokens"
        )


def _require_equal(model: nn.Module, optimizer: torch.optim.Optimizer, mesh: Mesh) -> None:
    """Refuse to train replicas that differ."""
    if mesh.world_size == 1:
        return
    first: dict[str, tuple[int, str]] = {}  # parts -> who holds them first, and their values
    for rank, (parts, values) in enumerate(mesh.gather(checkpoint.digest(model, optimizer))):
        holder, expected = first.setdefault(parts, (rank, values))
        if values != expected:
            raise StoreError(
                f"rank {rank} holds other weights than rank {holder} before the first step: nothing was trained; check "
                "the disk and the memory of its node"
            )
