"""What can be wrong with a recipe before any run is specified, each in one sentence."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from gpt3core.anomaly import POLICIES
from gpt3core.checks import require_between, require_positive
from gpt3core.errors import UsageError
from gpt3core.evals.spec import INSTRUCTED
from gpt3core.hints import nearest
from gpt3core.model import patterns
from gpt3core.numerics import BUILT
from gpt3core.parallel.layout import Layout, compile_problem, noise_scale_problem
from gpt3core.spec import DECAYS, PRETRAINING, RunSpec
from gpt3core.store import sweepdir
from sweeps.planning import estimate, hardware, limits, placing, precedence, train_options
from sweeps.planning.recipe import Anomaly, Evals, Gpt3Optim, Optim, Placement, Prune, Recipe

# beyond any experiment, and short of where arithmetic or memory gives out
MOST_FLOPS = 1e36
MOST_TOKENS = 1e18
MOST_LAYERS = 10_000
MOST_WIDTH = 1_000_000
MOST_CONTEXT = 100_000_000
MOST_REPLICAS = 10_000
LEAST_SHARE = 0.01  # of a GPU or of a loader's core


def check(recipe: Recipe) -> None:
    """Refuse a recipe whose values have no meaning, alone or together.

    Raises:
        ValueError: naming the first key that is wrong, what is allowed and what to do.
    """
    if not sweepdir.NAME.fullmatch(recipe.name):
        raise UsageError(
            f"name={recipe.name[:90]!r}: at most 80 letters, digits, '.', '_' and '-', the first a letter or a digit, "
            "for it names a folder"
        )
    if recipe.replace and recipe.extend:
        raise UsageError("replace=true and extend=true: one drops the earlier runs, the other keeps them; give one")
    require_positive(recipe, "min_tokens")
    require_between(recipe, 0, 2**63 - 1 - MOST_REPLICAS, "seed")
    require_between(recipe, 1, MOST_REPLICAS, "replicas")
    if recipe.replicas_below_flops is not None:
        require_positive(recipe, "replicas_below_flops")
    if not 0 < recipe.adaptive_share <= 1:
        raise UsageError(f"adaptive_share={recipe.adaptive_share}: a share of the grid's FLOPs, above 0 and at most 1")
    if recipe.adaptive_target is not None and not 0 < recipe.adaptive_target <= MOST_FLOPS:
        raise UsageError(f"adaptive_target={recipe.adaptive_target}: FLOPs, positive (like 1e14)")
    _check_anomaly(recipe.anomaly)
    _check_prune(recipe.prune)
    pruned = recipe.prune.by_value is not None
    schedule = recipe.optim.schedule  # type: ignore[attr-defined]
    train_options.check(recipe.train, schedule=schedule, adaptive=recipe.adaptive, pruned=pruned)
    require_positive(recipe.data, "max_epochs", where="data.")
    check_placements(recipe)
    check_evals(recipe.evals)
    hardware.check(recipe.plan)
    _check_cluster(recipe)
    limits.check(recipe)
    check_model(recipe.family, recipe)
    _check_kernel(recipe)
    precedence.check(recipe)


def _check_kernel(recipe: Recipe) -> None:
    if recipe.kernel in BUILT and (recipe.placement.gpus or recipe.family == "gpt3"):
        raise UsageError(f"kernel={recipe.kernel} is for CPUs, and these runs are on GPUs: leave it out, or give sdpa")


def check_placements(recipe: Recipe) -> None:
    """Refuse placements that have no meaning.

    Raises:
        ValueError: naming the first key that is wrong, what is allowed and what to do.
    """
    _check_placement(recipe.placement, "placement")
    _check_elastic(recipe)
    placing.check(recipe)
    for label in recipe.placement_of:
        _check_placement(placing.of(recipe, label), f"placement_of.{label}")


def _check_cluster(recipe: Recipe) -> None:
    for found in (recipe, *(placing.own(recipe, label) for label in recipe.placement_of)):
        place, gpus = found.placement, found.plan.gpus
        if gpus is not None and place.workers * (place.gpus or 1) > gpus:
            kind = f" of {place.accelerator}" if recipe.plan.gpus_of and place.accelerator else ""
            raise UsageError(
                f"plan.gpus={gpus}{kind}: a run takes placement.workers={place.workers} of placement.gpus="
                f"{place.gpus or 1:g}; give a larger cluster, or fewer workers"
            )


def check_model(family: str, recipe: Any) -> None:
    """Refuse shared parts of a shape that no run can have."""
    model = recipe.model
    require_between(model, 1, MOST_CONTEXT, "n_ctx", where="model.")
    if family in ("nano", "profiles"):
        require_between(model, 1, MOST_LAYERS, "n_layer", where="model.")
    require_between(model, 0, MOST_WIDTH, "mup_base_width", where="model.")
    if model.mup_base_d_head is not None:
        require_between(model, 1, MOST_WIDTH, "mup_base_d_head", where="model.")
    if recipe.optim.lr is not None:
        require_positive(recipe.optim, "lr", where="optim.")
    try:
        kinds = patterns.layers(model.attention)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if "banded" in kinds and not 1 <= model.band <= model.n_ctx:
        raise UsageError(
            f"model.band={model.band}: keys that a banded layer sees, from 1 to model.n_ctx={model.n_ctx}; "
            "or give model.attention=dense"
        )
    if {"strided", "fixed"} & set(kinds) and not 1 <= model.stride < model.n_ctx:
        raise UsageError(
            f"model.stride={model.stride}: of strided and fixed layers, from 1 to below model.n_ctx={model.n_ctx}, "
            "where they would be dense"
        )


def check_numbers(name: str, values: Sequence[float], most: float, what: str) -> None:
    """Refuse a list of numbers with one that is not positive and finite, or beyond ``most``."""
    for value in values:
        if not 0 < value <= most:
            raise UsageError(f"{name}: {str(value)[:40]} must be positive and at most {most:g} ({what})")


def check_optim(rules: Optim) -> None:
    """Refuse rules of the nano ladder and of explicit shapes that give no hyperparameters."""
    names = ("lr_max", "lr_times_width", "batch_tokens_at_1m", "batch_tokens_min", "batch_tokens_max")
    require_positive(rules, *names, where="optim.")
    require_between(rules, 0, 1, "warmup_fraction", where="optim.")
    check_schedule(rules)
    if rules.batch_tokens_min > rules.batch_tokens_max:
        raise UsageError(
            f"optim.batch_tokens_min={rules.batch_tokens_min} is more than "
            f"optim.batch_tokens_max={rules.batch_tokens_max}: give both"
        )


def check_schedule(rules: Optim | Gpt3Optim) -> None:
    """Refuse a schedule that does not exist, or a decay that is none or all of a run."""
    for name, allowed in (("schedule", PRETRAINING), ("decay_shape", DECAYS)):
        value = getattr(rules, name)
        if value not in allowed:
            raise UsageError(f"optim.{name}={value[:80]!r}{nearest(value, allowed)}: allowed are {', '.join(allowed)}")
    if not 0 < rules.decay_fraction < 1:
        raise UsageError(
            f"optim.decay_fraction={rules.decay_fraction:g}: a share of a run's tokens, above 0 and below 1"
        )


def decay_steps(rules: Optim | Gpt3Optim, tokens: int, batch: int) -> int:
    """The steps that the decay under wsd has of a run of so many tokens; refuses none, and all."""
    found, steps = round(rules.decay_fraction * tokens / batch), tokens // batch
    if not 0 < found < steps:
        part = "all" if found else "none"
        raise UsageError(
            f"optim.decay_fraction={rules.decay_fraction:g} is {part} of the {steps} steps of a run: give a share of "
            f"{1 / steps:.2g} or more, and below all of them, or more tokens"
        )
    return found


def _check_anomaly(rule: Anomaly) -> None:
    if rule.policy not in POLICIES:
        near = nearest(rule.policy, POLICIES)
        raise UsageError(f"anomaly.policy={rule.policy[:80]!r}{near}: allowed are {', '.join(POLICIES)}")


def check_spikes(recipe: Recipe, runs: Sequence[RunSpec]) -> None:
    """Refuse a rule for spikes that no run is long enough for."""
    longest = max(run.steps for run in runs)
    if recipe.anomaly.spike and longest <= recipe.anomaly.window:
        raise UsageError(
            f"anomaly.spike={recipe.anomaly.spike:g} has no effect: it looks at the last "
            f"anomaly.window={recipe.anomaly.window} steps, and the longest run has {longest}; give a smaller window"
        )


def _check_prune(prune: Prune) -> None:
    if prune.by_value is not None and not 0 < prune.by_value <= 1:
        raise UsageError(
            f"prune.by_value={prune.by_value}: a share of the law's 95% intervals, above 0 and at most 1 (like 0.05); "
            "null prunes nothing"
        )
    if prune.target is not None and not 0 < prune.target <= MOST_FLOPS:
        raise UsageError(f"prune.target={prune.target}: FLOPs, positive (like 1e14)")


def _check_elastic(recipe: Recipe) -> None:
    place, most = recipe.placement, max(placing.workers_of(recipe))
    if place.shrink_seconds != Placement().shrink_seconds and place.min_workers is None:
        raise UsageError(
            f"placement.shrink_seconds={place.shrink_seconds} has no effect without placement.min_workers: give the "
            "workers that do where nodes are missing, or leave it out"
        )
    if place.min_workers is not None and not 1 <= place.min_workers < most:
        allowed = f"from 1 to {most - 1}" if most > 1 else "and every run has one worker: leave it out"
        raise UsageError(
            f"placement.min_workers={place.min_workers}: the workers that do where nodes are missing, fewer than "
            f"placement.workers={most}, {allowed}"
        )


def _check_placement(place: Placement, where: str) -> None:
    require_between(place, 1, hardware.MOST_GPUS, "workers", where=f"{where}.")
    positive = ("max_failures", "checkpoint_seconds", "stall_seconds", "hang_seconds", "shrink_seconds")
    require_positive(place, *positive, where=f"{where}.")
    for name, value in vars(estimate.pins(place)).items():
        if value is not None and value < 1:
            raise UsageError(f"{where}.{name}={value}: ranks that share a model, 1 or more")
    cpus, gpus = place.cpus, place.gpus
    for name, value in (("cpus", cpus), ("gpus", gpus)):
        if not 0 <= value < math.inf:
            raise UsageError(f"{where}.{name}={value:g}: a finite number, 0 or more")
        if value != int(value) and not LEAST_SHARE <= value < 1:
            raise UsageError(
                f"{where}.{name}={value:g}: a whole number, or a share from {LEAST_SHARE} to below 1, for a worker "
                "has whole devices or a part of one"
            )
    if not gpus and (cpus < 1 or cpus != int(cpus)):
        raise UsageError(
            f"{where}.cpus={cpus:g}, {where}.gpus=0: a run without GPUs trains on placement.cpus threads, a whole "
            "number of 1 or more"
        )
    if 0 < gpus < 1 and place.workers > 1:
        raise UsageError(
            f"{where}.gpus={gpus:g}, {where}.workers={place.workers}: Ray packs shares of a GPU onto one device, "
            "where two ranks of one run cannot talk; give placement.workers=1, or placement.gpus=1"
        )


def check_evals(rules: Evals) -> None:
    """Refuse tasks that do not exist, files that do not hold their items, and numbers that are none.

    Raises:
        UsageError: in one sentence.
    """
    from gpt3core.evals import metrics, tasks  # numpy, which --help and --keys do without

    wanted = set()
    for task in rules.tasks:
        try:
            wanted.add(tasks.named(task).metric)
        except ValueError as error:
            raise UsageError(f"evals.tasks: {error}") from error
    if rules.run_programs and metrics.PASSES not in wanted:
        raise UsageError(f"run_programs=true has no effect: no task of {rules.tasks} runs programs")
    if metrics.PASSES in wanted and not rules.run_programs:
        raise UsageError(f"evals.tasks={rules.tasks}: {metrics.NOT_ALLOWED}")
    require_between(rules, 1, 1_000_000, "items", where="evals.")
    require_between(rules, 1, MOST_TOKENS, "validation_tokens", where="evals.")
    if rules.tasks and not rules.shots:
        raise UsageError("evals.shots=[]: tasks are asked with at least one number of examples, like [0]")
    asked = {task.removesuffix(INSTRUCTED) for task in rules.tasks}
    for task in rules.files:
        if task not in asked:
            raise UsageError(
                f"evals.files.{task} has no effect: evals.tasks does not ask {task}{nearest(task, sorted(asked))}"
            )
    for task in sorted(asked):
        _check_file(task, rules)


def _check_file(task: str, rules: Evals) -> None:
    """Refuse a file without the items that a task is asked with; one that needs a file and has none."""
    from gpt3core.evals import prompts, tasks
    from gpt3core.evals.tasks import files

    try:
        if task in rules.files:
            split = tasks.items(task, rules.items, paths=files.located(rules.files[task]))
            prompts.examples(random.Random(0), split.queries[0], max(rules.shots), split.pool)
        elif fields := tasks.fields(tasks.named(task)):
            raise ValueError(f"give the file of its items, JSON lines with {fields}")
    except ValueError as error:
        raise UsageError(f"evals.files.{task}: {str(error).removeprefix(f'task {task}: ')}") from error


def check_workers(recipe: Recipe, runs: Sequence[RunSpec]) -> None:
    """Refuse ranks over which a run cannot be cut: pinned degrees that do not divide it, replicas without rows."""
    for run in runs:
        own = placing.own(recipe, run.label)
        workers = own.placement.workers
        sequences = run.optim.ramp.start // run.model.n_ctx  # of the first batch; later ones are multiples
        if estimate.pins(own.placement) or recipe.family == "gpt3":
            cut = estimate.layout_of(run, own) if workers > 1 or recipe.family != "gpt3" else Layout()
            if problem := compile_problem(cut, recipe.compile):
                raise UsageError(f"{run.run_id}: {problem}")
        elif sequences % workers:
            raise UsageError(
                f"placement.workers={workers}: the batch of {run.run_id} has {sequences} sequences, which do not "
                "divide over them; take a divisor, or set optim.batch_tokens_min and _max to one batch for all"
            )
        if run.noise_scale_every:
            _check_noise_scale(run, estimate.placed(run, own) or Layout(data=workers))


def _check_noise_scale(run: RunSpec, layout: Layout) -> None:
    """Refuse to measure it where a run's ranks cannot."""
    sequences = run.optim.batch_tokens // run.model.n_ctx
    if problem := noise_scale_problem(layout, sequences):
        raise UsageError(f"train.noise_scale_every={run.noise_scale_every}, {run.run_id}: {problem}")
