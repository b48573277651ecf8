"""Every task from a file, and a generated one, asked of a model from end to end."""

import importlib.util
import json
from dataclasses import replace

import pytest

from gpt3core.data import shards
from gpt3core.evals import runner, tasks
from gpt3core.evals.spec import HELD_OUT, EvalSpec
from gpt3core.evals.tasks import files
from gpt3core.model import registry
from gpt3core.numerics import Numerics
from tests.conftest import make_run
from tests.gpt3core.evals.test_task_files import FORMATS

OTHER = {"mill": "barn", "shines": "glows", "cup": "mug", "ran": "sat", "jar": "tin", "pond": "lake", "A man": "A boy"}
OTHER |= {"wrote": "drew", "f()": "g()", "1+1": "1+2", "Guten": "Buten", "1 plus": "4 plus", "Ann told": "Eve told"}
OTHER |= {"He lit": "She lit", "He sat": "She sat"}


@pytest.mark.soak
def test_every_task_is_asked_with_and_without_examples(tales, tmp_path):
    run = make_run(tales)
    run = replace(run, model=replace(run.model, n_ctx=512), optim=replace(run.optim, batch_tokens=512), tokens=10 * 512)
    model = registry.of(run.model).build(run.model, kernel="softmax")
    model.init_weights(0)
    paths = {}
    for task, record, *_ in FORMATS:
        line = other = json.dumps(record)
        for word, instead in OTHER.items():
            other = other.replace(word, instead)
        assert other != line
        (tmp_path / f"{task}.jsonl").write_text(f"{line}\n{other}\n")
        paths[task] = [str(tmp_path / f"{task}.jsonl")]
    if importlib.util.find_spec("sacrebleu") is None:
        del paths["translation"]
    names = (*paths, "lambada_blank+instruction", "random_insertion", "random_insertion+instruction")
    contents = {task: files.fingerprint(found) for task, found in paths.items()}
    asked = EvalSpec(tasks=names, shots=(0, 1), items=2, validation_tokens=2048, files=paths, contents=contents)
    asked = replace(asked, run_programs=True)
    data = shards.prepare(run.data)
    runner.check(run, asked, data)
    table = runner.evaluate(model, run, asked, data, Numerics(precision="fp32", kernel="softmax"))
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    assert [(row["task"], row["shots"]) for row in rows if row["task"] != HELD_OUT] == [
        (t, k) for t in names for k in (0, 1)
    ]
    for row in rows[1:]:
        assert (row["fits"], row["shots_shown"]) == (True, row["shots"])
        assert row["content"] == contents.get(row["task"].removesuffix("+instruction"), "")[:12]
        assert row["metric"] == tasks.named(row["task"]).metric
        assert 0 <= row["accuracy"] <= 1
        assert row["logprob"] < 0
