"""Fine-tuning: GPT-1's formats token by token, its loss in closed form, a plain torch model beside ours, and resume."""

import copy
import itertools
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gpt3core import run as runs
from gpt3core import schedule
from gpt3core.data import formats, labelled, tokenizer
from gpt3core.data.labelled import Example
from gpt3core.data.labelled_loader import LabelledLoader, shares
from gpt3core.errors import StoppedError, StoreError
from gpt3core.evals import examples
from gpt3core.labelled import LabelledSpec
from gpt3core.parallel import mesh
from gpt3core.spec import RunSpec, as_dict, from_dict
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.train.loop import Trainer
from tests.gpt3core import ranks, stores
from tests.gpt3core.finetuning import choices, evaluation, parsed, sentiments, specified, write
from tests.gpt3core.outcomes import weights

NAME = "gpt2:300"
START, DELIMITER, EXTRACT = 300, 301, 302


def encoded(text):
    return tokenizer.load(NAME).encode_ordinary(text)


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "train.jsonl", sentiments(96, 1)), write(tmp_path / "test.jsonl", sentiments(32, 2))


@pytest.fixture
def several(tmp_path):
    return write(tmp_path / "train.jsonl", choices(96, 1)), write(tmp_path / "test.jsonl", choices(32, 2))


@pytest.fixture
def parent(store, tmp_path):
    """A store, and a finished run in it."""
    root, done, _ = store
    return stores.copied(root, tmp_path), done


# ------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"text": "it rains", "label": "a"}, [[START, "it rains", EXTRACT]]),
        (
            {"premise": "it rains", "hypothesis": "it is wet", "label": "a"},
            [[START, "it rains", DELIMITER, "it is wet", EXTRACT]],
        ),
        (
            {"first": "it rains", "second": "it is wet", "label": "a"},
            [
                [START, "it rains", DELIMITER, "it is wet", EXTRACT],
                [START, "it is wet", DELIMITER, "it rains", EXTRACT],
            ],
        ),
        (
            {"context": "it", "choices": ["rains", "snows", "hails"], "label": 1},
            [[START, "it", DELIMITER, choice, EXTRACT] for choice in ("rains", "snows", "hails")],
        ),
    ],
)
def test_an_example_becomes_the_sequences_of_figure_1(line, expected):
    other = {**line, "label": 0} if "choices" in line else {**line, "label": "b"}
    example = parsed([line, other])[0]
    plain = [[t for p in s for t in (encoded(p) if isinstance(p, str) else [p])] for s in expected]
    assert formats.sequences(example, NAME) == plain
    assert example.choices[example.answer] == ("snows" if "choices" in line else "a")


def test_sequences_are_filled_up_and_each_knows_where_its_extract_token_is():
    many = parsed(choices(8, 0))
    ways, length = formats.shape(many, NAME, 32)
    filled = formats.filled(many, NAME, ways, length)
    assert filled.tokens.shape == (8, 3, length + 1)
    for n, example in enumerate(many):
        for w in range(3):
            there = w < len(example.choices)
            assert (filled.ends[n, w] >= 0) == there
            if there:
                assert filled.tokens[n, w, filled.ends[n, w]] == EXTRACT
                assert not filled.tokens[n, w, filled.ends[n, w] + 1 :].any()
                assert not filled.tokens[n, w, -1], "the extract token is read, never only predicted"


def test_the_targets_of_an_example_count_one_together():
    ends = np.array([[3, -1], [2, 5]])
    found = shares(ends, 6)
    assert found.sum((1, 2)) == pytest.approx([1, 1])
    assert found[0, 0] == pytest.approx([1 / 3] * 3 + [0] * 3)
    assert found[1, 1] == pytest.approx([0.1] * 5 + [0])


# ---------------------------------------------------------------------------------------------------------- the loader


def test_examples_are_dealt_without_replacement_and_fewer_are_the_first_of_more():
    pool = parsed(sentiments(64, 0))
    few, many = labelled.drawn(pool, 16, seed=3), labelled.drawn(pool, 32, seed=3)
    assert many[:16] == few
    assert labelled.drawn(pool, 16, seed=4) != few
    assert labelled.drawn(pool[::-1], 16, seed=3) == few, "the order of a file's lines means nothing"
    ways, length = formats.shape(many, NAME, 32)
    loader = LabelledLoader(formats.filled(many, NAME, ways, length), lm_weight=0.5, seed=0)
    seen = [tuple(row) for row in loader.batch(0, 32).tokens[:, 0].tolist()]
    assert len(set(seen)) == 32
    assert loader.epochs(64 * ways * length) == 2
    assert (loader.batch(40, 44).tokens == loader.batch(32, 64).tokens[8:12]).all()


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


@pytest.mark.parametrize("kind", ["files", "several"])
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


def test_a_classifier_that_knows_nothing_costs_the_logarithm_of_the_answers(parent, files):
    root, done = parent
    spec = specified(done, *files, dropout=0.0, lm_weight=0.0)
    here = trainer(root, spec)
    with torch.no_grad():
        here.model.classifier.weight.zero_()
    step = here.batches.take(0, 16)
    assert here.held.backward(step.examples, 1 / step.counted).item() == pytest.approx(math.log(2))


def test_dropout_is_one_mask_for_all_sequences_of_an_example_and_none_in_an_evaluation(parent, several):
    root, done = parent
    here = trainer(root, specified(done, *several, dropout=0.5))
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


# ---------------------------------------------------------------------------------------------------------- the rates


def test_the_learning_rate_falls_from_a_quarter_of_the_parents_to_zero_as_in_the_released_code(parent, files):
    _, done = parent
    spec = specified(done, *files)
    steps = spec.steps
    assert steps == 6  # 2 epochs of 48 in batches of 16
    rates = [schedule.learning_rate(spec.optim, step) for step in range(steps)]
    assert rates == pytest.approx([done.optim.lr / 4 * (1 - step / steps) for step in range(steps)])


# ------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_begins_with_its_parents_weights_and_draws_only_what_is_new(parent, files):
    root, done = parent
    spec = specified(done, *files)
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


def test_a_plain_torch_loop_trains_to_the_same_weights(parent, files):
    root, done = parent
    spec = specified(done, *files, dropout=0.0)
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


@pytest.mark.parametrize("kind", ["files", "several"])
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


def test_the_classifier_answers_and_its_row_stands_beside_the_held_out_loss(parent, files, tmp_path):
    root, done = parent
    spec = specified(done, *files, count=64, epochs=20, lr=0.01)
    runs.run(spec, evaluation(spec), root)
    table = RunDir(root, spec.run_id).evaluation(evaluation(spec).eval_id).set_index("task")
    assert table.loc["labelled", "metric"] == "classifier"
    assert table.loc["labelled", "accuracy"] == 1.0  # one word tells the class
    assert table.loc["labelled", "logprob"] > -0.3
    assert table.loc["labelled", "chance"] == 0.5
    assert table.loc["held_out", "loss"] > 0


def _rank(rank, size, address, root, spec):
    with mesh.joined(rank, size, address, "cpu") as here:
        runs.run(spec, evaluation(spec), Path(root), mesh=here)
    return RunDir(Path(root), spec.run_id).curve().loss.tolist()


@pytest.mark.soak
def test_two_ranks_train_on_the_loss_of_one(parent, several, tmp_path):
    root, done = parent
    spec = specified(done, *several)
    one, two = (shutil.copytree(root, tmp_path / name) for name in ("one", "two"))
    runs.run(spec, evaluation(spec), one)
    losses = ranks.run(_rank, 2, str(two), spec)
    assert losses[0] == pytest.approx(RunDir(one, spec.run_id).curve().loss.tolist(), rel=1e-4)


# ------------------------------------------------------------------------------------------------------------ identity


def test_the_identity_holds_the_parent_and_the_content_of_the_examples_wherever_they_lie(parent, files, tmp_path):
    _, done = parent
    spec = specified(done, *files)
    moved = [write(tmp_path / f"moved-{path.name}", []) for path in files]
    for old, new in zip(files, moved, strict=True):
        new.write_bytes(old.read_bytes())
    assert specified(done, *moved).run_id == spec.run_id
    assert from_dict(RunSpec, as_dict(spec)) == spec
    write(files[0], [*sentiments(96, 1), {"text": "a new day", "label": "sad"}])
    assert specified(done, *files).run_id != spec.run_id
    assert replace(spec, parent=replace(spec.parent, step=20)).run_id != spec.run_id
    assert replace(spec, seed=1).run_id != spec.run_id


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([{"text": "a", "label": "x"}] * 3, "3 examples of one class, 'x'"),
        ([{"text": "a", "label": "x"}, {"text": "", "label": "y"}], "line 2: text is ''; a text is needed"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], "line 2: label is None"),
        (
            [{"text": "a", "label": "x"}, {"text": "b"}],
            "line 2 has the fields text; the first line is of the form",
        ),
        ([{"text": "a"}], "examples with text are of the form classification and have the fields label, text"),
        ([{"question": "a", "label": 0}], "fields label, question are of no form; there are classification:"),
        ([{"context": "a", "choices": ["b"], "label": 0}], "choices is .*; a list of two different texts or more"),
        ([{"context": "a", "choices": ["b", "c"], "label": 2}], "label 2 is the place of no choice; there are 0 to 1"),
    ],
)
def test_a_line_that_is_no_example_is_refused_in_a_sentence(lines, sentence):
    with pytest.raises(ValueError, match=sentence):
        parsed(lines)


def test_a_label_that_is_not_in_the_set_is_refused():
    with pytest.raises(ValueError, match=r"train.jsonl, line 1: label 'z' is none of x, y"):
        parsed([{"text": "a", "label": "z"}], ("x", "y"))


def test_examples_that_do_not_fit_or_are_too_few_or_of_one_class_are_refused(parent, files):
    _, done = parent
    long = {"text": "a day " * 30, "label": "sad"}
    write(files[0], [*sentiments(20, 1), long])
    with pytest.raises(ValueError, match=r"1 of \d+ examples do not fit the context of 32 tokens: the longest has \d+"):
        specified(done, *files)
    write(files[0], sentiments(20, 1))
    with pytest.raises(ValueError, match=r"examples=48: there are \d+ to train on"):
        specified(done, *files)
    with pytest.raises(ValueError, match="examples=1: those that seed 0 draws are all of the class"):
        specified(done, *files, count=1)


def test_a_parent_that_is_not_there_is_named(parent, files, tmp_path):
    _, done = parent
    spec = specified(done, *files)
    empty = open_root(tmp_path / "empty", create=True)
    with pytest.raises(StoreError, match=f"fine-tunes {done.run_id}, which .* does not hold: train it first"):
        runs.run(spec, evaluation(spec), empty)
    root = parent[0]
    gone = replace(spec, parent=replace(spec.parent, step=7))
    with pytest.raises(StoreError, match=r"fine-tunes step 7 of .* is not there \(checkpoints of it: 20, 40\)"):
        runs.run(gone, evaluation(gone), root)


def test_examples_that_changed_since_are_refused(parent, files):
    root, done = parent
    spec, evals = specified(done, *files), None
    evals = evaluation(spec)
    write(files[0], sentiments(96, 5))
    with pytest.raises(ValueError, match="was specified for"):
        runs.run(spec, evals, root)


def test_a_specification_that_means_nothing_is_refused(parent, files):
    _, done = parent
    spec = specified(done, *files)
    for changed, sentence in (
        ({"parent": None}, "a fine-tuning run has objective=labelled"),
        ({"objective": "next_token"}, "a fine-tuning run has objective=labelled"),
        ({"noise_scale_every": 5}, "both measure the loss of text"),
        ({"labelled": replace(spec.labelled, length=64)}, "the longest example has more tokens than n_ctx=32"),
        ({"tokens": spec.tokens + 1}, "not a whole number of batches"),
    ):
        with pytest.raises(ValueError, match=sentence):
            replace(spec, **changed)
    with pytest.raises(ValueError, match="two or more, and none for examples with choices of their own"):
        LabelledSpec(source="x", held_out=1, sha256="", form="classification", count=1, ways=1, length=8)


def test_a_task_without_choices_cannot_be_learnt():
    with pytest.raises(ValueError, match="task addition_2: its answers are not chosen among given ones"):
        examples.of_task("addition_2", 4, None, NAME)


def test_equal_questions_are_left_out_of_what_is_trained_on():
    one = Example(form="classification", texts=("a",), choices=("x", "y"), answer=0)
    assert labelled.unasked([one, replace(one, texts=("b",))], [replace(one, answer=1)]) == [replace(one, texts=("b",))]
