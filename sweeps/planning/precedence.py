"""One rule for a recipe's keys: what is typed wins over what the file says, and takes effect.

Some keys do nothing beside others (``adaptive_share`` without ``adaptive``, ``span`` where every budget has its
widths). Where one was typed and the other comes from the file, the file's goes back to its default; where both were
typed, or both stand in the file, ``check`` refuses them.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import MISSING, fields
from typing import Any

from gpt3core.errors import UsageError
from gpt3core.options import STOP_FIELDS

RULE = ("widths", "span", "center_params", "center_flops", "center_exponent")


def _off(recipe: Any) -> list[tuple[str, tuple[str, ...], str]]:
    """(switch, keys that do nothing as it stands, what to do) of a recipe."""
    found: list[tuple[str, tuple[str, ...], str]] = []
    if not recipe.adaptive:
        found.append(("adaptive", ("adaptive_share", "adaptive_target"), "adaptive=true"))
    if recipe.prune.by_value is None:
        found.append(("prune.by_value", ("prune.target",), "prune.by_value=0.05"))
    if (recipe.limit.hours, recipe.limit.usd, recipe.limit.deadline) == (None, None, None):
        found.append(("limit.hours", ("limit.target",), "limit.hours=10"))
    if not recipe.anomaly.spike:
        found.append(("anomaly.spike", ("anomaly.window",), "anomaly.spike=9"))
    if recipe.anomaly.policy != "rollback":
        found.append(("anomaly.policy", ("anomaly.back", "anomaly.ahead"), "anomaly.policy=rollback"))
    if recipe.anomaly.policy == "stop":
        found.append(("anomaly.policy", ("anomaly.limit",), "anomaly.policy=skip"))
    if recipe.train.stop_every is None:
        keys = tuple(f"train.{name}" for name in STOP_FIELDS)
        found.append(("train.stop_every", keys, "train.stop_every=1e6"))
    if recipe.replicas == 1:
        found.append(("replicas", ("replicas_below_flops",), "replicas=2 or more"))
    if recipe.family == "profiles" and recipe.widths:
        found.append(("widths", ("width_step", "spacing"), "widths=[]"))
    if not recipe.evals.tasks:
        found.append(("evals.tasks", ("evals.shots", "evals.items"), "evals.tasks"))
    if recipe.optim.schedule == "wsd" and recipe.family == "gpt3":
        found.append(("optim.schedule", ("optim.cosine_tokens",), "optim.schedule=cosine"))
    if recipe.family == "gpt3" and not recipe.optim.ramp_start:
        found.append(("optim.ramp_start", ("optim.ramp_tokens",), "optim.ramp_start=32768"))
    if recipe.optim.schedule != "wsd":
        found.append(("optim.schedule", ("optim.decay_fraction", "optim.decay_shape"), "optim.schedule=wsd"))
    kinds = set(recipe.model.attention.split(",")) | ({"banded"} if recipe.model.attention == "alternating" else set())
    if "banded" not in kinds:
        found.append(("model.attention", ("model.band",), "model.attention=alternating"))
    if not kinds & {"strided", "fixed"}:
        found.append(("model.attention", ("model.stride",), "model.attention=strided,dense"))
    if "fixed" not in kinds:
        found.append(("model.attention", ("model.summary",), "model.attention=fixed,dense"))
    if not recipe.model.mup_base_width:
        found.append(("model.mup_base_width", ("model.mup_base_d_head", "optim.lr"), "model.mup_base_width=64"))
    if recipe.optim.lr is not None:
        rule = ("optim.lr_factor",) if recipe.family == "gpt3" else ("optim.lr_max", "optim.lr_times_width")
        found.append(("optim.lr", rule, "optim.lr=null"))
    if recipe.optim.rule is not None:
        found.append(("optim.rule", _ruled(recipe), "optim.rule=null"))
    found += _placed(recipe)
    if not recipe.placement.gpus and recipe.family != "gpt3":
        keys = tuple(f"plan.{f.name}" for f in fields(recipe.plan))
        found.append(("placement.gpus", keys, "placement.gpus=1"))
    return found


def _ruled(recipe: Any) -> tuple[str, ...]:
    """The keys that a rule of hyperparameters takes the place of."""
    rule = recipe.optim.rule
    names = ["lr", "lr_factor"] if recipe.family == "gpt3" else ["lr", "lr_max", "lr_times_width"]
    if recipe.family != "gpt3":
        names += ["batch_tokens_at_1m", "batch_tokens_min", "batch_tokens_max"]
    names += ["warmup_tokens" if recipe.family == "gpt3" else "warmup_fraction"] * (rule.warmup_fraction is not None)
    names += ["final_fraction"] * (rule.final_fraction is not None)
    return tuple(f"optim.{name}" for name in names)


def _placed(recipe: Any) -> list[tuple[str, tuple[str, ...], str]]:
    """The same of where runs go."""
    found: list[tuple[str, tuple[str, ...], str]] = []
    gpt3, own = recipe.family == "gpt3", recipe.placement_of.values()
    if not any(given.priority for given in own):
        keys = ("placement.preempt", "placement.patience_hours")
        found.append(("placement_of", keys, "placement_of='{SIZE: {priority: 1}}'"))
    if not gpt3 and recipe.placement.workers == 1 and not any((given.workers or 1) > 1 for given in own):
        found.append(("placement.workers", ("placement.rack",), "placement.workers=2 or more"))
    if not recipe.placement.gpus and not gpt3:
        found.append(("placement.gpus", ("placement.accelerator",), "placement.gpus=1"))
    if recipe.plan.gpus is None:
        found.append(("plan.gpus", ("plan.gpus_of", "plan.rack_nodes", "plan.node_hours"), "plan.gpus=1024"))
    if not recipe.placement.rack and not any(given.rack for given in own):
        found.append(("placement.rack", ("plan.rack_nodes",), "placement.rack=ray.io/gpu-domain"))
    return found


def settle(recipe: Any, typed: Set[str]) -> None:
    """Let the typed keys win over those of the file, in place.

    Raises:
        UsageError: where two typed keys leave one of them without effect.
    """
    for switch, keys, _ in _off(recipe):
        if switch in typed:
            for key in keys:
                if key not in typed:
                    _set(recipe, key, _default(recipe, key))
    if recipe.replicas > 1 and "replicas" in typed and "replicas_below_flops" not in typed:
        recipe.replicas_below_flops = None
    if "placement.workers" in typed and "placement.min_workers" not in typed:
        _settle_elastic(recipe, typed)
    if hasattr(recipe, "widths_at"):
        _settle_widths(recipe, typed)


def _settle_elastic(recipe: Any, typed: Set[str]) -> None:
    """Typed workers that are no more than the file says to do with: all of them are waited for."""
    place = recipe.placement
    most = max([place.workers, *(given.workers or 0 for given in recipe.placement_of.values())])
    if place.min_workers is not None and place.min_workers >= most:
        for key in {"placement.min_workers", "placement.shrink_seconds"} - typed:
            _set(recipe, key, _default(recipe, key))


def _settle_widths(recipe: Any, typed: Set[str]) -> None:
    """A typed part of the rule holds for every budget; typed budgets need no widths of other budgets."""
    rule = sorted(typed & set(RULE))
    if not any(key.partition(".")[0] == "widths_at" for key in typed):
        if rule:
            recipe.widths_at = {}
        elif "budgets" in typed:
            recipe.widths_at = {b: widths for b, widths in recipe.widths_at.items() if b in recipe.budgets}
    elif rule and set(recipe.budgets) <= set(recipe.widths_at):
        raise UsageError(
            f"{rule[0]} has no effect beside widths_at, which names the widths of every budget: leave one of them out"
        )


def check(recipe: Any) -> None:
    """Refuse keys that would have no effect beside the others.

    Raises:
        UsageError: naming the first of them and what gives it one.
    """
    for switch, keys, remedy in _off(recipe):
        for key in keys:
            value = _get(recipe, key)
            if value != _default(recipe, key):
                now = _written(_get(recipe, switch))
                raise UsageError(
                    f"{key}={_written(value)} has no effect with {switch}={now}: leave it out, or give {remedy}"
                )
    for budget in getattr(recipe, "widths_at", {}):
        if budget not in recipe.budgets:
            raise UsageError(
                f"widths_at names {budget:g}, which is none of the budgets: add it to budgets, or leave it out"
            )


def ruled_out(recipe: Any) -> str:
    """What to say of a file's rule for widths where every budget has its own; empty where the rule is used, or none."""
    named = getattr(recipe, "widths_at", {})
    without = [key for key in RULE if hasattr(recipe, key) and _get(recipe, key) != _default(recipe, key)]
    if not named or not without or not set(recipe.budgets) <= set(named):
        return ""
    return f"without effect on these budgets, of which widths_at names the widths: {', '.join(without)}"


def _written(value: Any) -> str:
    """A value as a user writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _get(recipe: Any, key: str) -> Any:
    for part in key.split("."):
        recipe = getattr(recipe, part)
    return recipe


def _set(recipe: Any, key: str, value: Any) -> None:
    *path, last = key.split(".")
    setattr(_get(recipe, ".".join(path)) if path else recipe, last, value)


def _default(recipe: Any, key: str) -> Any:
    *path, last = key.split(".")
    owner = _get(recipe, ".".join(path)) if path else recipe
    (found,) = (f for f in fields(owner) if f.name == last)
    return found.default if found.default_factory is MISSING else found.default_factory()
