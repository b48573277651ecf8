"""What --plan prints: the runs, their costs by a first estimate, and what to know before they start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from itertools import groupby

from rich.console import Console

from gpt3core import costs, sizes, terminal
from gpt3core.anomaly import AnomalySpec
from gpt3core.data import episodes
from gpt3core.parallel import choose
from gpt3core.spec import RunSpec
from gpt3core.trunk import Prefix
from sweeps.planning import estimate, hardware, mup, placing, totals, train_options, trunks
from sweeps.planning.grid import Grid
from sweeps.planning.recipe import Hardware, Placement, Recipe
from sweeps.planning.text import Text

MOST_ROWS = 300  # more runs are summed by budget
LEFT_SHOWN = 40  # cells left out that are listed
WIDTH = 210  # where the output is no terminal


def show(
    recipe: Recipe,
    grid: Grid,
    text: Text,
    trained: set[str],
    remarks: Sequence[str],
    pruned: Set[str] = frozenset(),
) -> None:
    """Print a plan.

    Args:
        trained: run_ids that the store has already.
        remarks: sentences that the reader must not miss.
        pruned: run_ids that will not be started.
    """
    kept = [run for run in grid.runs if run.run_id not in pruned]
    out, prefixes = terminal.console(WIDTH), trunks.prefixes(kept)
    if recipe.family == "gpt3":
        _gpt3(out, recipe, grid.runs, text)
    else:
        _grid(out, recipe, grid.runs, text, trained, pruned, prefixes)
    if grid.left:
        cells = "; ".join(f"{c.label} at {c.at} ({c.reason})" for c in grid.left[:LEFT_SHOWN])
        more = f"; and {len(grid.left) - LEFT_SHOWN:,} more" if len(grid.left) > LEFT_SHOWN else ""
        out.print(f"left out: {cells}{more}", style="dim", markup=False)
    if shared := _trunks(grid.runs, prefixes):
        out.print(shared, markup=False)
    if parametrised := mup.told(recipe, grid.runs):
        out.print(parametrised, markup=False)
    out.print(_placement(recipe), markup=False)
    if rule := AnomalySpec(**vars(recipe.anomaly)).describe():
        out.print(f"anomalies: {rule}", markup=False)
    for line in (*train_options.lines(recipe.train), *_fewer(recipe, grid.runs)):
        out.print(line, markup=False)
    for line in totals.lines(recipe, [run for run in kept if run.run_id not in trained], prefixes):
        out.print(line, markup=False)
    out.print(_text(recipe, text), markup=False)
    if len(text.sources) > 1:
        out.print(_mixture(text, max(grid.runs, key=lambda run: run.tokens)), markup=False)
    if text.episodes:
        out.print(_episodes(text, max(run.tokens for run in grid.runs)), markup=False)
    if recipe.data.mask_documents:
        out.print(_masked(grid.runs, text), markup=False)
    for remark in remarks:
        out.print(remark, markup=False, style="bold")


def _trunks(runs: Sequence[RunSpec], prefixes: Mapping[str, Prefix]) -> str:
    """How many runs start from a longer one's checkpoint, and what that saves."""
    if not prefixes:
        return ""
    whole = sum(costs.train_flops(run.model, run.tokens) for run in runs)
    own = sum(
        trunks.own_share(run, prefixes.get(run.run_id)) * costs.train_flops(run.model, run.tokens) for run in runs
    )
    return (
        f"trunks: {len(prefixes):,} of {len(runs):,} runs start from a checkpoint of a longer run of their size, with "
        f"the bits that they would have alone: {whole - own:.3g} of {whole:.3g} training FLOPs ({1 - own / whole:.0%}) "
        "are saved"
    )


def _fewer(recipe: Recipe, runs: Sequence[RunSpec]) -> list[str]:
    """Why not all of these runs will be trained to their ends."""
    found = []
    if recipe.adaptive:
        flops = [costs.train_flops(run.model, run.tokens) for run in runs]
        about = f"{recipe.adaptive_target:.3g}" if recipe.adaptive_target else "ten times the largest run's"
        found.append(
            f"adaptive: of these runs those that tell most about {about} FLOPs, until {recipe.adaptive_share:.0%} of "
            f"the {sum(flops):.3g} training FLOPs of all are spent (adaptive_share)"
        )
    if recipe.prune.by_value is not None:
        found.append(
            f"pruned: runs under way that can together move the law by no more than {recipe.prune.by_value:.3g} of its "
            "95% intervals (prune.by_value)"
        )
    return found


def _placement(recipe: Recipe) -> str:
    """Where runs go, and sizes that go elsewhere."""
    rules = placing.rules(recipe)
    found = f"placed, each run: {_placed(recipe.placement)}"
    for label, given in recipe.placement_of.items():
        priority = f", priority {given.priority}" if given.priority else ""
        found += f"; {label}: {_placed(placing.of(recipe, label))}{priority}"
    if placing.prioritised(recipe):
        makes = "stops runs below it, which go on later" if rules.preempt else "waits for runs below it to end"
        found += f"; a higher priority {makes}, and is worth {rules.patience / 3600:g} hours of waiting a step"
    return found


def _placed(place: Placement) -> str:
    gpus = f"{place.gpus:g} GPU{'s' * (place.gpus > 1)} and " if place.gpus else ""
    worker = f"{gpus}{place.cpus:g} core{'s' * (place.cpus != 1)}"
    degrees = ", ".join(f"{name} {degree}" for name, degree in vars(estimate.pins(place)).items() if degree is not None)
    cut = f", {degrees}" if degrees else ""
    each = worker if place.workers == 1 else f"{place.workers} x ({worker})"
    on = f" on {place.accelerator}" if place.accelerator else ""
    rack = f" of one {place.rack}" if place.rack else ""
    return f"{each}{cut}{on}{rack}"


def _text(recipe: Recipe, text: Text) -> str:
    about = "" if text.exact else "about "
    return (
        f"text: {recipe.data.corpus}, {about}{_tokens(text.train_tokens)} training and "
        f"{_tokens(text.validation_tokens)} validation tokens of {text.documents:,} documents; losses are measured "
        f"on {_tokens(text.measured_tokens)} of them, which tell differences above {text.resolution:.2g} nats apart"
    )


def _mixture(text: Text, largest: RunSpec) -> str:
    """As in Table 2.2 of the paper: every source's weight, tokens and epochs."""
    each = (
        f"{name} {source.weight:.1%} of the tokens, {_tokens(source.train_tokens)} "
        f"({largest.tokens * (1 - text.episodes) * source.weight / source.train_tokens:,.2f} epochs)"
        for name, source in text.sources.items()
    )
    return f"mixture, with the epochs of the largest run, {largest.run_id}: {'; '.join(each)}"


def _episodes(text: Text, tokens: int) -> str:
    """What is generated."""
    return (
        f"episodes: {text.episodes:.1%} of the training tokens are generated lines of question and answer, "
        f"{_tokens(episodes.TOKENS)} different ones ({tokens * text.episodes / episodes.TOKENS:.2f} epochs of them in "
        "the largest run); losses are of the text alone"
    )


def _tokens(count: int) -> str:
    return f"{count / 1e6:,.2f}M" if count >= 10_000 else f"{count:,}"


def _masked(runs: Sequence[RunSpec], text: Text) -> str:
    mean = (text.train_tokens + text.validation_tokens) / max(1, text.documents)
    return (
        f"attention: within documents (data.mask_documents), of {mean:,.0f} tokens on average, long texts as passages; "
        f"a sequence has {runs[0].model.n_ctx:,}. C counts all pairs of a sequence, as published counts do"
    )


# --------------------------------------------------------------------------------------------- nano ladder and shapes


def _grid(
    out: Console,
    recipe: Recipe,
    runs: Sequence[RunSpec],
    text: Text,
    trained: set[str],
    pruned: Set[str],
    prefixes: Mapping[str, Prefix],
) -> None:
    seconds = {run.run_id: trunks.own_share(run, prefixes.get(run.run_id)) * _seconds(recipe, run) for run in runs}
    places = {label: placing.of(recipe, label) for label in {run.label for run in runs}}
    devices = {r.run_id: (p := places[r.label]).workers * (p.gpus or p.cpus) for r in runs}
    unit = "GPU-min" if recipe.placement.gpus else "core-min"
    title = f"{recipe.name}: {len(runs):,} run{'s' * (len(runs) != 1)}"
    if len(runs) <= MOST_ROWS:
        columns = ("run", "budget", "N non-emb.", "N total", "D tokens", "epochs", "steps", "batch", "lr")
        rows = []
        for run in runs:
            state = "trained" if run.run_id in trained else "pruned" if run.run_id in pruned else "to train"
            rows.append([*_run_row(run, text), f"{seconds[run.run_id] * devices[run.run_id] / 60:.1f}", state])
        last = ("C 6ND", "N total", "steps", "lr", "C exact", "batch", "epochs")
        terminal.table(
            out, title, (*columns, "C exact", "C 6ND", unit, "state"), rows, words={"run", "state"}, last=last
        )
    else:
        grouped = groupby(sorted(runs, key=_budget), key=_budget)
        rows = [_budget_row(budget, list(group), seconds, devices, trained) for budget, group in grouped]
        terminal.table(
            out, f"{title}, by budget", ("budget", "runs", "sizes", "D tokens", unit, "trained"), rows, words=set()
        )
    left = [run for run in runs if run.run_id not in trained and run.run_id not in pruned]
    total = sum(seconds[run.run_id] * devices[run.run_id] for run in left)
    minutes, device = total / 60, unit.removesuffix("-min")
    out.print(
        f"to train: {minutes:,.{0 if minutes > 10 else 1}f} {device}-minutes by a first guess of speed (the sweep "
        f"corrects it as runs finish)",
        markup=False,
    )
    days = max((seconds[run.run_id] for run in left), default=0.0) / 86_400
    if recipe.placement.gpus and days > recipe.plan.max_days:
        out.print(f"the longest run takes {days:,.1f} days, more than plan.max_days={recipe.plan.max_days:g}")


def _seconds(recipe: Recipe, run: RunSpec) -> float:
    own = placing.own(recipe, run.label)
    return estimate.seconds(run, workers=own.placement.workers, gpus=own.placement.gpus, plan=own.plan)


def _run_row(run: RunSpec, text: Text) -> list[str]:
    counts = costs.params(run.model)
    return [
        run.run_id,
        "-" if run.budget_flops is None else f"{run.budget_flops:.3g}",
        f"{counts.nonembedding:,}",
        f"{counts.total:,}",
        f"{run.tokens / 1e6:.2f}M",
        f"{text.epochs(run):.2f}",
        f"{run.steps:,}",
        str(run.optim.batch_tokens),
        f"{run.optim.lr:.4f}",
        f"{costs.train_flops(run.model, run.tokens):.3g}",
        f"{costs.six_nd(counts.nonembedding, run.tokens):.3g}",
    ]


def _budget(run: RunSpec) -> float:
    return run.budget_flops if run.budget_flops is not None else float(run.tokens)


def _budget_row(
    budget: float, runs: list[RunSpec], seconds: dict[str, float], devices: dict[str, float], trained: set[str]
) -> list[str]:
    labels = list(dict.fromkeys(run.label for run in runs))
    tokens = sorted(run.tokens for run in runs)
    return [
        f"{budget:.3g}",
        f"{len(runs):,}",
        labels[0] if len(labels) == 1 else f"{len(labels)}: {labels[0]} to {labels[-1]}",
        f"{tokens[0] / 1e6:.2f}M to {tokens[-1] / 1e6:.2f}M",
        f"{sum(seconds[run.run_id] * devices[run.run_id] for run in runs) / 60:,.0f}",
        f"{sum(run.run_id in trained for run in runs):,}",
    ]


# --------------------------------------------------------------------------------------------------------------- GPT-3


def _gpt3(out: Console, recipe: Recipe, runs: Sequence[RunSpec], text: Text) -> None:
    owns = {run.label: placing.own(recipe, run.label) for run in runs}
    gpus = {label: own.placement.accelerator or own.plan.gpu for label, own in owns.items()}
    plans = {gpus[label]: own.plan for label, own in owns.items()}
    title = f"{recipe.name} on {'; on '.join(_device(gpu, plan) for gpu, plan in plans.items())}"
    columns = ("size", "tokens", "parameters", "of D.1", "6ND of D.1", "C exact", "PF-days", "epochs")
    layout = ("GPUs", "data", "state", "tensor", "pipe", "micro", "again", "GB", "bubble", "days", "USD", "MFU")
    why: dict[str, str] = {}
    rows = []
    for run in sorted(runs, key=lambda r: (-round(r.tokens, -9), costs.params(r.model).total)):
        own = owns[run.label]
        found = estimate.on_gpus(run, own.plan, own.placement)
        rows.append([*_gpt3_row(run, text), *_layout_row(found, recipe.plan.max_days)])
        if run.label not in why and found.choice is not None:
            why[run.label] = "; ".join(choose.explain(found.task, found.choice))
    last = ("6ND of D.1", "of D.1", "PF-days", "again", "bubble", "micro", "state", "parameters", "GB", "epochs")
    beyond = ("C exact", "MFU", "pipe", "tensor")
    terminal.table(out, title, (*columns, *layout), rows, words={"size"}, last=(*last, *beyond))
    for name, words in why.items():
        on = f" on {gpus[name]}" * (len(plans) > 1)
        out.print(f"{name}{on}: {words}", markup=False)
    out.print(
        "parameters: exact, head tied; 6ND of D.1: with Table D.1's parameter counts and tokens in whole billions; "
        "C exact: matrix products incl. head and the pairs that causal and banded masks leave, x3. 1.3B and 13B are "
        "built as D.1 counts them (16 heads; d_model 5120). State: replicas that share weights, gradients and moments; "
        "micro: sequences of a micro-batch; again: what is computed again. Days with the bubble, recomputation and "
        "messages, and with no failures; MFU is of the model's own FLOPs. Saves take at most 4% of the time."
    )
    if recipe.plan.usd_per_gpu_hour is None:
        for gpu, plan in plans.items():
            if gpu not in plan.usd_per_gpu_hour_of:
                key = f"plan.usd_per_gpu_hour{f'_of={{{gpu}: ...}}' * (len(plans) > 1)}"
                usd = hardware.usd_per_hour(plan, gpu)
                out.print(f"USD at {usd:.2f} a {gpu}-hour, a round figure: set {key} to yours.", markup=False)


def _device(gpu: str, plan: Hardware) -> str:
    """What is assumed of a GPU, and where the time of a step comes from."""
    device, known = hardware.gpu(plan), gpu if gpu == plan.gpu else f"{gpu}, estimated as {plan.gpu}"
    speed = f"what was published ({device.source})"
    if plan.mfu is not None:
        speed = f"plan.mfu, {plan.mfu:.0%} of the peak while a GPU works"
    peak, memory = device.peak_flops / 1e12, device.memory_bytes / 1e9
    return f"{known}: {peak:.0f} TFLOP/s and {memory:.0f} GB a GPU; time by {speed}"


def _gpt3_row(run: RunSpec, text: Text) -> list[str]:
    row = sizes.GPT3[run.label]
    flops, epochs = costs.train_flops(run.model, run.tokens), text.epochs(run)
    return [
        run.label,
        f"{run.tokens / 1e9:,.0f}B" if run.tokens >= 1e9 else f"{run.tokens / 1e6:,.2f}M",
        f"{costs.params(run.model).total:,}",
        f"{row.params_printed / 1e6:,.0f}M",
        f"{costs.six_nd(row.params_printed, round(run.tokens, -9) or run.tokens):.3g}",
        f"{flops:.3g}",
        f"{flops / costs.PF_DAY:,.1f}",
        f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2f}",
    ]


def _layout_row(found: estimate.GpuEstimate, max_days: float) -> list[str]:
    if found.choice is None or found.choice.step is None:
        return ["-"] * 11 + [found.reason]
    layout, step = found.choice.layout, found.choice.step
    late = " (over max_days)" if found.days > max_days and not math.isinf(max_days) else ""
    degrees = (layout.data, layout.shard, layout.tensor)
    return [
        f"{layout.world_size:,}",
        *(f"{degree:,}" for degree in degrees),
        f"{layout.pipeline}" + (f" x {layout.virtual}" if layout.virtual > 1 else ""),
        str(layout.micro_batch),
        layout.recompute,
        f"{found.choice.memory.total / 1e9:.0f}",
        f"{step.bubble / step.seconds:.0%}",
        f"{found.days:.1f}{late}",
        f"{found.usd:,.0f}",
        f"{found.mfu:.0%}",
    ]
