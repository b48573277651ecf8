"""Fine-tuning: the loss in closed form, a plain torch loop beside ours, resume to the bit, and identity."""

import copy
import itertools
import math
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gpt3core import run as runs
from gpt3core import schedule
from gpt3core.data import shards, tokenizer
from gpt3core.errors import StoppedError
from gpt3core.evals import runner
from gpt3core.labelled import LabelledSpec
from gpt3core.numerics import Numerics
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.spec import RunSpec, as_dict, from_dict
from gpt3core.store.rundir import RunDir
from gpt3core.train.loop import Trainer
from tests.gpt3core import ranks
from tests.gpt3core.finetuning import HELD_OUT, choices, evaluation, pairs, sentiments, specified, write
from tests.gpt3core.outcomes import weights

FP32 = Numerics(precision="fp32", kernel="softmax")

# ------------------------------------------------------------------------------------------------------------ the loss


def trainer(root, spec, **options):
    RunDir(root, spec.run_id).create(spec)
    return Trainer(spec, root, deal=runs._labelled, **options)


def plainly(model, spec, batch):
    """The loss of a batch as the paper writes it, on logits of all, one example after another."""
    total = 0.0
    for tokens, ends, answer in zip(batch.tokens, batch.ends, batch.answers, strict=True):
        texts, read = [], []
        for sequence, end in zip(tokens, ends, strict=True):
            if end < 0:
                continue
            ids = torch.from_numpy(sequence[: end + 1])[None]
            hidden = model.hidden(ids)[0]
            logs = F.log_softmax(hidden[:-1] @ model.tokens.weight.T, -1)
            texts.append(-logs[torch.arange(end), ids[0, 1:]].mean())
            read.append(hidden[-1])
        head = model.classifier
        if spec.labelled.classes:
            scores = head.weight @ torch.stack(read).sum(0) + head.bias
        else:
            scores = torch.stack([head.weight[0] @ one + head.bias[0] for one in read])
        total = total - F.log_softmax(scores, -1)[answer] + spec.labelled.lm_weight * torch.stack(texts).mean()
    return total / len(batch.answers)


@pytest.mark.parametrize("kind", ["labelled_files", "pair_files", "choice_files"])
def test_the_loss_and_its_gradient_are_the_papers(parent, kind, request, tmp_path):
    root, done = parent
    train, test = request.getfixturevalue(kind)
    spec = specified(done, train, test, dropout=0.0, batch=12)
    here = trainer(root, spec, halvings=2)
    with torch.no_grad():
        here.model.classifier.weight.normal_(generator=torch.Generator().manual_seed(0))
    batch = here.loader.batch(0, 12)
    step = here.batches.take(0, 12)
    assert len(step.examples) > 1, "micro-batches are of one loss"
    found = here.held.backward(step.examples, 1 / step.counted)
    gradients = {name: p.grad.clone() for name, p in here.model.named_parameters()}
    here.model.zero_grad()
    expected = plainly(here.model, spec, batch)
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, p in here.model.named_parameters():
        assert gradients[name] == pytest.approx(p.grad.numpy(), abs=2e-6), name


def test_a_classifier_that_knows_nothing_costs_the_logarithm_of_the_answers(parent, labelled_files):
    root, done = parent
    spec = specified(done, *labelled_files, dropout=0.0, lm_weight=0.0)
    here = trainer(root, spec)
    with torch.no_grad():
        here.model.classifier.weight.zero_()
    step = here.batches.take(0, 16)
    assert here.held.backward(step.examples, 1 / step.counted).item() == pytest.approx(math.log(2))


def test_dropout_is_one_mask_for_all_sequences_of_an_example_and_none_in_an_evaluation(parent, choice_files):
    root, done = parent
    here = trainer(root, specified(done, *choice_files, dropout=0.5))
    head = here.model.classifier
    with torch.no_grad():
        head.weight.fill_(1.0)
    hidden, ends = torch.ones(12, 5, 16), torch.full((4, 3), 2)
    assert torch.equal(head(hidden, ends), torch.full((4, 3), 16.0))
    with head.dropout.at(range(4)):
        found = head(hidden, ends)
    assert (found == found[:, :1]).all()
    assert len(set(found[:, 0].tolist())) > 1
    with head.dropout.at(range(2, 4)):
        assert torch.equal(head(hidden[6:], ends[2:]), found[2:]), "whatever the micro-batch"


def test_what_is_dropped_does_not_depend_on_the_micro_batch(parent, choice_files):
    root, done = parent
    here = trainer(root, specified(done, *choice_files, dropout=0.5, batch=12))
    with torch.no_grad():
        here.model.classifier.weight.normal_(generator=torch.Generator().manual_seed(0))

    def loss(micro_batch):
        step = replace(here.batches, micro_batch=micro_batch).take(12, 24)
        return here.held.backward(step.examples, 1 / step.counted).item()

    assert loss(5) == pytest.approx(loss(12), rel=1e-6)


# ---------------------------------------------------------------------------------------------------------- the rates


def test_the_learning_rate_falls_from_a_quarter_of_the_parents_to_zero_as_in_the_released_code(parent, labelled_files):
    _, done = parent
    spec = specified(done, *labelled_files)
    steps = spec.steps
    assert steps == 6  # 2 epochs of 48 in batches of 16
    rates = [schedule.learning_rate(spec.optim, step) for step in range(steps)]
    assert rates == pytest.approx([done.optim.lr / 4 * (1 - step / steps) for step in range(steps)])


# ------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_begins_with_its_parents_weights_and_draws_only_what_is_new(parent, labelled_files):
    root, done = parent
    spec = specified(done, *labelled_files)
    here = trainer(root, spec)
    old = weights(root, done)
    for name, p in here.model.named_parameters():
        values = p.detach().numpy()
        if name == "tokens.weight":
            assert values[:300].tobytes() == old[name]
            assert np.abs(values[300:]).min() > 0
        elif name.startswith("classifier"):
            assert name not in old
        else:
            assert values.tobytes() == old[name], name
    assert (here.step, here.first_step) == (0, 0)
    assert not here.optimizer.state


@pytest.mark.soak
def test_a_plain_torch_loop_trains_to_the_same_weights(parent, labelled_files):
    root, done = parent
    spec = specified(done, *labelled_files, dropout=0.0)
    here = trainer(root, spec)
    model = copy.deepcopy(here.model)
    assert here.train() == "done"
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": spec.optim.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, betas=(spec.optim.beta1, spec.optim.beta2), eps=spec.optim.eps)
    for step in range(spec.steps):
        loss = plainly(model, spec, here.loader.batch(16 * step, 16 * step + 16))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.optim.clip)
        for group in adam.param_groups:
            group["lr"] = done.optim.lr / 4 * (1 - step / spec.steps)
        adam.step()
        adam.zero_grad()
    for (name, ours), theirs in zip(here.model.named_parameters(), model.parameters(), strict=True):
        assert ours.detach().numpy() == pytest.approx(theirs.detach().numpy(), abs=2e-4), name


def finished(spec, root, **options):
    evals = evaluation(spec)
    result = runs.run(spec, evals, root, **options)
    folder = RunDir(root, spec.run_id)
    curve = folder.curve().drop(columns="attempt").to_csv()
    return result["status"], weights(root, spec), folder.evaluation_path(evals.eval_id).read_bytes(), curve


@pytest.mark.parametrize("kind", ["labelled_files", "choice_files"])
def test_a_run_that_was_stopped_ends_with_the_same_bits_and_is_never_trained_twice(parent, kind, request, tmp_path):
    root, done = parent
    spec = specified(done, *request.getfixturevalue(kind), count=64, epochs=3)
    one, other = (shutil.copytree(root, tmp_path / name) for name in ("one", "other"))
    whole = finished(spec, one)
    for after in (3, 4):
        count = itertools.count(1)
        with pytest.raises(StoppedError):
            runs.run(spec, evaluation(spec), other, stop=lambda count=count, after=after: next(count) >= after)
    assert finished(spec, other) == whole
    attempts = len(RunDir(other, spec.run_id).attempts())
    assert finished(spec, other) == whole
    assert len(RunDir(other, spec.run_id).attempts()) == attempts


def test_the_classifier_answers_and_its_row_stands_beside_the_held_out_loss(parent, labelled_files, tmp_path):
    root, done = parent
    spec = specified(done, *labelled_files, count=64, epochs=20, lr=0.01)
    runs.run(spec, evaluation(spec), root)
    table = RunDir(root, spec.run_id).evaluation(evaluation(spec).eval_id).set_index("task")
    assert table.loc["labelled", "metric"] == "classifier"
    assert table.loc["labelled", "accuracy"] == 1.0  # one word tells the class
    assert table.loc["labelled", "logprob"] > -0.3
    assert table.loc["labelled", "chance"] == 0.5
    assert table.loc["held_out", "loss"] > 0

    train, _ = labelled_files
    fresh = [line for line in sentiments(64, 3) if line["text"] not in train.read_text()][:32]
    other = write(tmp_path / "other.jsonl", [{**line, "label": "sad"} for line in fresh])
    bad = sum(line["label"] == "sad" for line in fresh)
    assert answered(spec, root, [other, train], items=32) == bad / 32 < 1, "the questions of the file that is asked"
    with pytest.raises(ValueError, match=r"of the 16 questions are among the 64 examples that run .* was trained on"):
        answered(spec, root, [train])
    with pytest.raises(ValueError, match=r"has the classes fine, sad, and run .* was trained on glad, sad"):
        answered(spec, root, [write(other, [{"text": "a", "label": "fine"}, {"text": "b", "label": "sad"}])], items=2)
    with pytest.raises(ValueError, match=r"is of the form similarity, and run .* was trained on classification"):
        answered(spec, root, [write(other, pairs(8, 0))], items=8)


def answered(spec, root, paths, items=HELD_OUT):
    """The accuracy of a finished run on the questions of other files."""
    files = tuple(map(str, paths))
    asked = evaluation(replace(spec, labelled=replace(spec.labelled, files=files)), items)
    runs.run(spec, asked, root)
    return RunDir(root, spec.run_id).evaluation(asked.eval_id).set_index("task").loc["labelled", "accuracy"]


def test_more_questions_of_one_file_may_not_be_what_was_trained_on(parent, labelled_files):
    root, done = parent
    train, _ = labelled_files
    spec = specified(done, train, train, count=64)
    runs.run(spec, evaluation(spec), root)
    with pytest.raises(ValueError, match=r"ask at most the 16 that were held out, or another file"):
        answered(spec, root, [train], items=64)


def test_a_question_may_have_more_choices_than_the_examples(parent, choice_files):
    root, done = parent
    train, test = choice_files
    more = {"context": "six 7", "choices": ["one", "two", "six", "ten", "red"], "label": 2}
    write(test, [*choices(HELD_OUT - 1, 2), more])
    spec = specified(done, train, test)
    assert spec.labelled.ways == 3
    runs.run(spec, evaluation(spec), root)
    table = RunDir(root, spec.run_id).evaluation(evaluation(spec).eval_id).set_index("task")
    assert math.isfinite(table.loc["labelled", "logprob"])


def test_what_a_classifier_answers_need_not_fit_a_prompt(parent, tmp_path):
    _, done = parent
    n_ctx = done.model.n_ctx
    encode = tokenizer.load(done.data.tokenizer).encode_ordinary
    (most,) = {n for n in range(99) if len(encode("glad" + " a" * n)) == n_ctx - 2}  # with start and extract
    lines = [{"text": word + " a" * (most - n), "label": word} for n in range(HELD_OUT) for word in ("glad", "sad")]
    train, test = write(tmp_path / "train.jsonl", sentiments(96, 1)), write(tmp_path / "test.jsonl", lines)
    spec = specified(done, train, test)
    asked, data = replace(evaluation(spec), items=len(lines)), shards.prepare(done.data)
    runner.check(spec, asked, data)
    with pytest.raises(ValueError, match=r"task labelled: .* questions are longer than the context"):
        runner.check(done, asked, data)
    write(tmp_path / "test.jsonl", [*lines, {"text": "glad" + " a" * (most + 1), "label": "glad"}])
    asked = replace(evaluation(spec), items=len(lines) + 1)
    with pytest.raises(ValueError, match=f"1 of {len(lines) + 1} examples do not fit the context of {n_ctx} tokens"):
        runner.check(spec, asked, data)


def _rank(rank, size, address, root, spec, layout, most):
    """As one of the ranks, which are stopped after so many steps."""
    count = itertools.count(1)
    with mesh.joined(rank, size, address, "cpu", layout=layout, seconds=20) as here:
        stop = {"stop": lambda: next(count) >= most} if most else {}
        return runs.run(spec, evaluation(spec), Path(root), mesh=here, suggested=FP32, **stop)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["labelled_files", "choice_files"])
@pytest.mark.parametrize(
    "layout", [Layout(data=2), Layout(data=2, shard=2), Layout(data=4, shard=2)], ids=Layout.describe
)
def test_ranks_train_to_the_losses_and_answers_of_one(parent, kind, request, tmp_path, layout):
    """Whole replicas, and those that share their state; stopped on the way, and gone on with."""
    root, done = parent
    spec = specified(done, *request.getfixturevalue(kind))
    one, many = (shutil.copytree(root, tmp_path / name) for name in ("one", "many"))
    runs.run(spec, evaluation(spec), one, suggested=FP32)
    stopped = ranks.run(_rank, layout.world_size, str(many), spec, layout, 3)
    assert [kind for kind, _ in stopped] == ["StoppedError"] * layout.world_size
    first, *others = ranks.run(_rank, layout.world_size, str(many), spec, layout, None)
    assert first["status"] == "done"
    assert others == [None] * len(others)
    alone, together = (RunDir(root, spec.run_id) for root in (one, many))
    assert together.curve().loss.tolist() == pytest.approx(alone.curve().loss.tolist(), rel=1e-5)
    theirs, ours = (run.evaluation(evaluation(spec).eval_id).set_index("task") for run in (alone, together))
    for column in ("accuracy", "logprob", "loss"):
        assert ours[column].astype(float).tolist() == pytest.approx(
            theirs[column].astype(float).tolist(), abs=1e-5, nan_ok=True
        )


# ------------------------------------------------------------------------------------------------------------ identity


def test_the_identity_holds_the_parent_and_the_examples_wherever_they_lie(parent, labelled_files, tmp_path):
    _, done = parent
    spec = specified(done, *labelled_files)
    moved = [write(tmp_path / f"moved-{path.name}", []) for path in labelled_files]
    for old, new in zip(labelled_files, moved, strict=True):
        new.write_bytes(old.read_bytes())
    assert specified(done, *moved).run_id == spec.run_id
    assert from_dict(RunSpec, as_dict(spec)) == spec
    write(labelled_files[0], [*sentiments(96, 1), {"text": "a new day", "label": "sad"}])
    assert specified(done, *labelled_files).run_id != spec.run_id
    assert replace(spec, parent=replace(spec.parent, step=20)).run_id != spec.run_id
    assert replace(spec, seed=1).run_id != spec.run_id


def test_every_field_of_the_examples_is_hashed_but_where_they_come_from(parent, labelled_files):
    spec = specified(parent[1], *labelled_files)
    other = {"source": "x", "files": ("x",), "held_out": 9, "sha256": "x", "form": "entailment", "count": 9, "ways": 2}
    other |= {"classes": ("x", "y", "z"), "length": 8, "lm_weight": 0.1, "dropout": 0.2}
    assert set(other) == {f.name for f in fields(LabelledSpec)}, "a new field: give it another value here"
    whole = spec.optim.batch_tokens * 1000
    known = replace(spec, optim=replace(spec.optim, batch_tokens=whole), tokens=whole)
    same = {
        name
        for name, value in other.items()
        if replace(known, labelled=replace(spec.labelled, **{name: value})).run_id == known.run_id
    }
    assert same == {"source", "files", "held_out"}
