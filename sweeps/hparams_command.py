"""The command behind sweeps/hparams.py: plan a search of hyperparameters, or drive it and fit its law."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3core import cli, costs, terminal
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import places, rundir
from gpt3core.store.sweepdir import SweepDir
from sweeps.command import DONE, FAILED, FLAGS, INTERRUPTED
from sweeps.driving.searching import Known, Ledger
from sweeps.planning import estimate, recipe, search
from sweeps.planning import text as texts
from sweeps.planning.grid import Grid
from sweeps.planning.recipe import Recipe
from sweeps.planning.search import Proxy, Search
from sweeps.planning.text import Text

PIPE_WIDTH = 160  # of what is printed where the output is no terminal
COLUMNS = ("proxy", "N non-emb.", "D tokens", "lr", "batch", "C exact", "tried", "core-min")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a command asks for, read and checked; nothing is started."""

    recipe: Recipe
    search: Search
    grid: Grid
    proxies: list[Proxy]
    text: Text
    root: Path
    idle: list[str]  # sentences on settings that change nothing here

    def ledger(self) -> Ledger:
        """What was tried under its name; raises StoreError for a damaged record."""
        sweep = SweepDir(self.root, self.recipe.name)
        return Ledger(sweep, self.proxies, self.search, self.grid.evals, self.recipe.min_tokens)


def run(argv: Sequence[str], usage: str) -> int:
    """The command; the exit code is 0 when done, 1 when trials failed or no law came of them, 130 when interrupted.

    Raises:
        UsageError, StoreError: for what cannot be searched (2), in one sentence.
    """
    settings, flags = cli.split(argv, FLAGS)
    if "--help" in flags:
        print(usage)
        return DONE
    if "--keys" in flags:
        print(_yaml(*search.load(settings)), end="")
        return DONE
    order = read(settings)
    if "--plan" in flags:
        _show(order)
        return DONE
    if reason := texts.refusal(order.text, order.recipe, order.grid.runs):
        raise UsageError(reason)
    return _drive(order)


def read(settings: Sequence[str]) -> Order:
    """What the settings ask for.

    Raises:
        UsageError, StoreError: where they describe no search, or their text is missing.
    """
    from gpt3core.data import corpus  # numpy, which --help and --keys do without

    chosen, asked = search.load(settings)
    try:
        fingerprint = corpus.fingerprint(chosen.data.corpus)
    except OSError as error:
        raise UsageError(f"data.corpus={chosen.data.corpus:.200}: not readable ({error.strerror})") from error
    root = places.folder(rundir.default_root(), "a search of hyperparameters")
    cells, proxies = search.build(chosen, asked, fingerprint)
    text = texts.describe(cells.runs, cells.evals)
    idle = [f"{word} changes none of the proxies" for word in search.idle(settings, chosen, cells)]
    return Order(recipe=chosen, search=asked, grid=cells, proxies=proxies, text=text, root=root, idle=idle)


def _yaml(chosen: Recipe, asked: Search) -> str:
    """The whole recipe with its search, as ``recipe=PATH`` of this command reads it back."""
    from omegaconf import OmegaConf

    section = OmegaConf.to_yaml(OmegaConf.create({search.SECTION: vars(asked)}))
    return recipe.to_yaml(chosen) + section


def _show(order: Order) -> None:
    """What would be tried, and what it takes."""
    console, known = terminal.console(PIPE_WIDTH), order.ledger().known()
    title = f"{order.recipe.name}: {len(order.proxies)} proxies, {order.search.trials} trials each"
    rows = [_row(order, proxy, known) for proxy in order.proxies]
    terminal.table(console, title, COLUMNS, rows, words=COLUMNS[:1], last=("batch", "lr", "tried"))
    for line in [*_totals(order, known), *order.idle]:
        console.print(line)
    for left in order.grid.left:
        console.print(f"left out: {left.label} at {left.at} ({left.reason})")
    if reason := texts.refusal(order.text, order.recipe, order.grid.runs):
        console.print(f"only to plan, not to run as it stands: {reason}")
    print(f"store: {order.root}")


def _row(order: Order, proxy: Proxy, known: Sequence[Known]) -> list[str]:
    base, asked = proxy.base, order.search
    ends = [search.trial(proxy, {"lr": asked.lr[i], "batch": asked.batch[i]}) for i in (0, 1)]
    tried = [trial for trial in known if trial.proxy == proxy.number and trial.ended]
    return [
        base.label,
        f"{costs.params(base.model).nonembedding:,}",
        f"{base.tokens / 1e6:.2f}M",
        " to ".join(f"{end.optim.lr:.3g}" for end in ends),
        " to ".join(f"{end.optim.batch_tokens:,}" for end in ends),
        f"{costs.train_flops(base.model, base.tokens):.3g}",
        f"{len(tried)} of {asked.trials}",
        f"{asked.trials * _seconds(order, proxy) / 60:.1f}",
    ]


def _seconds(order: Order, proxy: Proxy) -> float:
    place = order.recipe.placement
    return estimate.seconds(proxy.base, workers=1, gpus=place.gpus, plan=order.recipe.plan) * (place.gpus or place.cpus)


def _totals(order: Order, known: Sequence[Known]) -> list[str]:
    """Trials, FLOPs and hours, and what is there already."""
    asked, place = order.search, order.recipe.placement
    every, halved = search.flops(asked, order.proxies)
    hours = asked.trials * sum(_seconds(order, proxy) for proxy in order.proxies) / 3600
    unit = "GPU" if place.gpus else "core"
    ended, stopped = [t for t in known if t.ended], [t for t in known if t.stopped is not None]
    halving = f"; {halved:.3g} and about {hours * halved / every:.2g} where one in {asked.reduction:g} passes a rung"
    said = [
        f"in all {asked.trials * len(order.proxies):,} trials, at most {every:.3g} training FLOPs and {hours:.2g} "
        f"{unit}-hours by a first guess of speed{halving if asked.scheduler == 'asha' else ''}",
        f"searched: lr and batch in proportion to the recipe's own, by {asked.searcher}"
        + "".join(
            f", {name} of {getattr(asked, name)}"
            for name in ("warmup_fraction", "final_fraction")
            if getattr(asked, name)
        ),
    ]
    if known:
        said.append(
            f"tried already: {len(ended)} ended, {len(stopped)} of them stopped; {len(known) - len(ended)} cut off"
        )
    return said


def _drive(order: Order) -> int:
    from sweeps.cluster.connect import Connection
    from sweeps.driving import driver

    def say(words: str) -> None:
        print(words, flush=True)

    sweep = SweepDir(order.root, order.recipe.name)
    with sweep.owned():
        ledger = order.ledger()
        known = ledger.known()
        wanted = order.search.trials * len(order.proxies)
        ended = sum(trial.ended for trial in known)
        say(f"search {sweep.name}: {wanted} trials of {len(order.proxies)} proxies, {ended} ended; store {order.root}")
        if ledger.strangers:
            say(f"{len(ledger.strangers)} runs of this name are no trials of these proxies, and take no part")
        for sentence in order.idle:
            say(sentence)
        ledger.write(_yaml(order.recipe, order.search))
        connection = Connection(driver.namespace(order.root, sweep.name))
        try:
            from sweeps.cluster import tune_search  # it imports Ray, whose environment is settled by now

            whole = tune_search.run(connection, ledger, order.recipe.placement, seed=order.recipe.seed, say=say)
        finally:
            connection.close()
        after = ledger.known()
    stopped, ended = sum(t.stopped is not None for t in after), sum(t.ended for t in after)
    say(f"{ended} of {wanted} trials ended, {stopped} of them stopped before their end")
    if not whole:
        say("not all of them ended: start the same command again to go on where it stopped")
        return INTERRUPTED
    return _law(order)


def _law(order: Order) -> int:
    """Fit the law, print it, and write the rule."""
    from analysis import hparams
    from analysis.settings import HparamSettings
    from analysis.tuning import study

    name = order.recipe.name
    settings = HparamSettings(runs=str(order.root), sweep=name, batch_on=order.search.batch_on)
    try:
        found = study.tune(settings)
    except (UsageError, StoreError) as error:
        print(f"no law of the optimum: {error}", file=sys.stderr)
        return FAILED
    hparams.show(found)
    out = hparams.write(found, study.default_file(found))
    print(f"written: {out}; name it in a recipe or on its command line: optim.rule={out}")
    return DONE
