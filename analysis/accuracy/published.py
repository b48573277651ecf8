"""What GPT-3 scored on the tasks that are asked here too: table H.1 of Brown et al. 2020."""

from __future__ import annotations

from functools import cache

import pandas as pd

from analysis.reference.tables import gpt3_models, reference
from gpt3core.evals.spec import INSTRUCTED

SETTINGS = ("zero-shot", "one-shot", "few-shot")
ANY = SETTINGS
# our task -> its row of the table, and the settings whose prompts are the same
SAME: dict[str, tuple[str, str, tuple[str, ...]]] = {
    **{f"addition_{n}": (f"{n}D+", "acc", ANY) for n in (2, 3, 4, 5)},
    **{f"subtraction_{n}": (f"{n}D-", "acc", ANY) for n in (2, 3, 4, 5)},
    "multiplication_2": ("2Dx", "acc", ANY),
    "three_operations": ("1DC", "acc", ANY),
    "cycle_letters": ("Cycled Letters", "acc", ANY),
    "anagrams_1": ("Anagrams 1", "acc", ANY),
    "anagrams_2": ("Anagrams 2", "acc", ANY),
    "random_insertion": ("Symbol Insertion", "acc", ANY),
    "reversed_words": ("Reversed Words", "acc", ANY),
    "hellaswag": ("HellaSwag", "acc", ANY),
    "piqa": ("PIQA", "acc", ANY),
    "arc_easy": ("ARC (Easy)", "acc", ANY),
    "arc_challenge": ("ARC (Challenge)", "acc", ANY),
    "openbookqa": ("OpenBookQA", "acc", ANY),
    "copa": ("Copa", "acc", ANY),
    "winogrande": ("Winogrande", "acc", ANY),
    "winograd": ("Winograd", "acc", ANY),
    "boolq": ("BoolQ", "acc", ANY),
    "rte": ("RTE", "acc", ANY),
    "lambada": ("LAMBADA", "acc", ("zero-shot",)),  # with examples the paper fills in blanks (section 3.1.1)
    "lambada_blank": ("LAMBADA", "acc", ("one-shot", "few-shot")),
    "squad": ("SQuADv2", "f1", ANY),
    "triviaqa": ("TriviaQA", "acc", ANY),
    "natural_questions": ("NQs", "acc", ANY),
    "web_questions": ("WebQs", "acc", ANY),
}
COLUMNS = ("model", "params", "train_flops", "setting", "shots", "accuracy")


def scores(*tasks: str) -> pd.DataFrame:
    """What the eight models scored on a task, or on several in the mean; no row where the paper did not ask them all.

    Returns:
        COLUMNS, the smallest model first, accuracy from 0 to 1. Of several tasks only the settings in which all of them
        were shown as many examples.
    """
    found = pd.concat([_of(task) for task in tasks]) if tasks else pd.DataFrame(columns=list(COLUMNS))
    alike = found.groupby(["model", "params", "train_flops", "setting"], as_index=False).agg(
        shots=("shots", "first"), differ=("shots", "nunique"), count=("shots", "size"), accuracy=("accuracy", "mean")
    )
    alike = alike[(alike["count"] == len(tasks)) & (alike.differ == 1)]
    return alike[list(COLUMNS)].sort_values(["params", "shots"], ignore_index=True)


def _of(task: str) -> pd.DataFrame:
    plain = task.removesuffix(INSTRUCTED)  # the paper's numbers are with its instructions, where it has any
    if plain not in SAME:
        return pd.DataFrame(columns=list(COLUMNS))
    name, metric, settings = SAME[plain]
    table = _table()
    rows = table[(table.task == name) & (table.metric == metric) & table.setting.isin(settings)]
    return rows[list(COLUMNS)]


@cache
def _table() -> pd.DataFrame:
    """Table H.1 without the test server's scores, which exist for one size, beside the models' sizes and compute."""
    table = reference("gpt3_table_H1.csv")
    table = table[table.split != "test_server"].rename(columns={"K": "shots"})
    table["accuracy"] = table.value / 100
    return table.merge(gpt3_models()[["model", "params", "train_flops"]], on="model")
