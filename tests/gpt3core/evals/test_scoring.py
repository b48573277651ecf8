"""Scores and written answers of models whose probabilities are known in closed form."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpt3core.data import tokenizer
from gpt3core.evals import answers, scoring
from gpt3core.evals.item import Prompt
from gpt3core.evals.tasks.task import Task
from gpt3core.generate.beam import beam_search
from gpt3core.generate.choices import Search
from gpt3core.generate.decode import STOP, complete
from gpt3core.numerics import Numerics

FP32 = Numerics(precision="fp32", kernel="softmax")
ENCODING = tokenizer.load("gpt2:300")
VOCAB = ENCODING.n_vocab
SOURCE = None  # prompts are given, so no task needs one


class Bigram(torch.nn.Module):
    """A model whose next token depends on the one before; what it is not told is as likely as all else that is left."""

    def __init__(self, known: dict[str, dict[str, float]]):
        super().__init__()
        logprobs = np.full((VOCAB, VOCAB), -math.log(VOCAB))
        for before, after in known.items():
            (row,) = [ENCODING.eot_token] if before == "" else ENCODING.encode_ordinary(before)
            columns = [ENCODING.encode_ordinary(text)[0] for text in after]
            logprobs[row] = math.log((1 - sum(after.values())) / (VOCAB - len(after)))
            logprobs[row, columns] = np.log(list(after.values()))
        self.table = torch.nn.Parameter(torch.tensor(logprobs, dtype=torch.float32))
        self.spec = SimpleNamespace(n_ctx=64, vocab_size=VOCAB)

    def hidden(self, ids):
        return self.table[ids]

    def head(self, hidden):
        return hidden


def scored(model, task: Task, *prompts: Prompt):
    return scoring.score(model, task, [scoring.case(task, p, ENCODING) for p in prompts], ENCODING, FP32)


def choice(score: str = "per_token", answer_context: str = "") -> Task:
    return Task(kind="multiple_choice", source=SOURCE, metric="choice", score=score, answer_context=answer_context)


def test_each_score_prefers_the_choice_of_its_own_formula():
    # after "Q": ab 0.20 x 0.9 = 0.18, c 0.19, d 0.10; after "A": c 0.5, d 0.02
    known = {"Q": {"a": 0.20, "c": 0.19, "d": 0.10}, "a": {"b": 0.9}, "A": {"a": 0.1, "c": 0.5, "d": 0.02}}
    model = Bigram(known)

    def accuracy(right, task):
        others = tuple(text for text in ("ab", "c", "d") if text != right)
        return scored(model, task, Prompt(text="Q", answer=right, choices=(right, *others)))["accuracy"]

    tasks = {"sum": choice("sum"), "per_token": choice(), "normalised": choice("normalised", "A")}
    best = {name: [right for right in ("ab", "c", "d") if accuracy(right, task)] for name, task in tasks.items()}
    # per token ab has sqrt(0.18) = 0.42; normalised d has 0.10 / 0.02 = 5, ab 2, c 0.38
    assert best == {"sum": ["c"], "per_token": ["ab"], "normalised": ["d"]}


def test_the_log_probability_is_that_of_the_whole_right_answer():
    model = Bigram({"Q": {"a": 0.2}, "a": {"b": 0.9}})
    row = scored(model, choice(), *[Prompt(text="Q", answer="ab", choices=("ab", "c"))] * 3)
    assert row["logprob"] == pytest.approx(math.log(0.18), abs=1e-5)
    assert row["logprob_se"] == pytest.approx(0.0, abs=1e-6)
    assert row["accuracy_se"] == pytest.approx(math.sqrt(0.8 * 0.2 / 3))  # (3 + 1) / (3 + 2) of 3


def test_a_tie_is_not_a_right_answer():
    row = scored(Bigram({}), choice(), Prompt(text="Q", answer="a", choices=("b", "a", "c", "d")))
    assert (row["accuracy"], row["logprob"]) == (0.0, pytest.approx(-math.log(VOCAB), abs=1e-5))


def test_an_empty_choice_is_refused():
    with pytest.raises(ValueError, match="an answer or a choice after 'Q' is empty"):
        scoring.case(choice(), Prompt(text="Q", answer="a", choices=("a", "")), ENCODING)


def test_an_ending_is_scored_after_each_choice():
    # the choices themselves are as likely as one another, what follows them is not
    model = Bigram({"a": {"x": 0.4}, "b": {"x": 0.3}, "x": {"y": 0.5}})
    right, wrong = (Prompt(text="Q", answer=a, choices=("a", "b"), ending="xy") for a in ("a", "b"))
    assert [scored(model, choice("sum"), prompt)["accuracy"] for prompt in (right, wrong)] == [1.0, 0.0]
    assert scored(model, choice("sum"), right)["logprob"] == pytest.approx(math.log(0.4 * 0.5), abs=1e-5)


EXACT = Task(kind="generate", source=SOURCE)
CLOZE = Task(kind="cloze", source=SOURCE, stop="")


def test_an_exact_answer_ends_where_it_ends_and_its_end_is_no_part_of_its_probability():
    goes_on = {"Q": {"a": 0.6}, "a": {"b": 0.5}, "b": {"\n": 0.3, "c": 0.4}}
    ends = {**goes_on, "b": {"\n": 0.4, "c": 0.3}}
    prompt = Prompt(text="Q", answer="ab")
    assert [scored(Bigram(known), EXACT, prompt)["accuracy"] for known in (goes_on, ends)] == [0.0, 1.0]
    assert scored(Bigram(goes_on), CLOZE, prompt)["accuracy"] == 1.0  # where it ends is not asked
    assert scored(Bigram(ends), EXACT, prompt)["logprob"] == pytest.approx(math.log(0.3), abs=1e-5)
    alias = Prompt(text="Q", answer="zz", aliases=("ab",))
    assert scored(Bigram(ends), EXACT, alias)["accuracy"] == 1.0


def test_forcing_an_answer_finds_right_what_greedy_decoding_writes():
    chain = Bigram({a: {b: 0.5} for a, b in itertools.pairwise("Qabc\n")})
    text = answers.write(chain, [ENCODING.encode_ordinary("Q")], ENCODING, stops=["\n"], tokens=8)
    assert text == ["abc"]
    assert scored(chain, EXACT, Prompt(text="Q", answer="abc"))["accuracy"] == 1.0
    assert scored(chain, EXACT, Prompt(text="Q", answer="ab"))["accuracy"] == 0.0


@pytest.mark.parametrize(("metric", "expected"), [("match", 0.5), ("f1", (1 + 2 / 3) / 2), ("number", 0.0)])
def test_written_answers_are_compared_with_the_right_ones(metric, expected):
    chain = Bigram({a: {b: 0.5} for a, b in itertools.pairwise("Qa b\n")} | {"": {"Q": 0.5}})
    task = Task(kind="generate", source=SOURCE, metric=metric)
    chosen = Prompt(text="Q", answer="zz", aliases=("B!",)), Prompt(text="Q", answer="b c")
    row = scored(chain, task, *chosen)  # it writes "a b", which is "b" without its article
    assert (row["metric"], row["accuracy"]) == (metric, pytest.approx(expected))


def test_written_answers_stop_at_the_first_of_their_ends():
    chain = Bigram({a: {b: 0.5} for a, b in itertools.pairwise("Qab;c\n")})
    (prompt,) = prompts = [ENCODING.encode_ordinary("Q")]
    assert answers.write(chain, prompts, ENCODING, stops=["c\n", "b;"], tokens=8) == ["a"]
    assert answers.write(chain, prompts, ENCODING, stops=["!"], tokens=3) == ["ab;"]
    (text,) = complete(chain, prompts, tokens=9, choose=_greedy, cached=False, over=lambda t: len(t) == 2)
    assert (len(text.tokens), text.ended) == (2, STOP)
    assert answers.write(chain, [prompt] * 40, ENCODING, stops=[";"], tokens=8) == ["ab"] * 40


def _greedy(logits, rows):
    return logits.argmax(-1).tolist()


def test_a_wide_beam_finds_the_best_of_all_texts_that_end():
    known = {"Q": {"a": 0.5, "b": 0.3}, "a": {"a": 0.3, "b": 0.3, "\n": 0.2}, "b": {"\n": 0.8, "a": 0.1}}
    model, how = Bigram(known), Search(beam=16, length_penalty=0.6)
    newline = ENCODING.encode_ordinary("\n")[0]

    def value(text: str) -> float:
        total = sum(math.log(known[a][b]) for a, b in itertools.pairwise(f"Q{text}\n"))
        return total / (len(text) + 1) ** how.length_penalty

    letters = ["".join(some) for n in (1, 2, 3) for some in itertools.product("ab", repeat=n)]
    texts = [text for text in letters if "bb" not in text]
    best = max(texts, key=value)
    prompt = ENCODING.encode_ordinary("Q")
    found = beam_search(model, prompt, tokens=4, how=how, cached=False, over=lambda t: t[-1] == newline)
    assert best == "b", "and not the greedy beginning"
    assert ENCODING.decode(list(found[0].tokens)) == "b\n"
    assert (found[0].ended, found[0].score) == (STOP, pytest.approx(value("b"), abs=1e-5))
    assert answers.write(model, [prompt], ENCODING, stops=["\n"], tokens=4, beams=4) == ["b"]
