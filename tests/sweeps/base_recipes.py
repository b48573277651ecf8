"""A small recipe of every ladder, in which every key has its effect, and the keys that may be set."""

from sweeps.planning import recipe

COMMON = """
name: base
min_tokens: 2.0e+5
seed: 5
replicas: 2
adaptive: true
prune: {by_value: 0.1}
data: {max_epochs: 100}
evals: {tasks: [copy], items: 20, validation_tokens: 100000}
placement: {gpus: 1}
plan: {max_days: 1.0e-6}
model: {attention: "banded,fixed", stride: 32}
"""
BASES = {
    "nano": COMMON
    + """
widths: [16, 32, 64, 128]
budgets: [1.0e+11, 1.0e+16]
widths_at: {1.0e+16: [32]}
replicas_below_flops: 2.0e+11
optim: {batch_tokens_min: 512}
""",
    "profiles": COMMON.replace("adaptive: true\nprune: {by_value: 0.1}\n", "")
    + """
family: profiles
budgets: [1.0e+12, 1.0e+16]
points: 3
center_params: 3.0e+4
center_flops: 1.0e+12
center_exponent: 0.6
replicas_below_flops: 2.0e+12
optim: {batch_tokens_min: 512}
""",
    "gpt3": COMMON
    + """
family: gpt3
sizes: [125M, 350M]
tokens: [1.0e+7, 5.0e+8]
replicas_below_flops: 5.0e+17
""",
    "shapes": COMMON
    + """
family: shapes
shapes: [{n_layer: 1, d_model: 64, n_head: 2}, {n_layer: 4, d_model: 32, n_head: 1, d_head: 32}]
budgets: [1.0e+12, 1.0e+16]
tokens: [3.0e+6]
replicas_below_flops: 2.0e+12
optim: {batch_tokens_min: 512}
""",
}
PLACING = (
    "budgets",
    "widths",
    "center_params",
    "center_flops",
    "center_exponent",
)  # of profiles, as of the nano ladder
SETTABLE = [
    (family, key)
    for family, kind in recipe.FAMILIES.items()
    for key in recipe.keys_of(kind)
    if key != "family"  # selects the ladder
    and (family != "profiles" or key in PLACING or key not in recipe.keys_of(recipe.NanoRecipe))
]
