"""Our models under lm-evaluation-harness against the harness's own backend for transformers, from the same weights."""

import importlib
import os
import sys

import pytest

from gpt3core.data import tokenizer
from gpt3core.errors import UsageError
from gpt3core.interop.folder import export_gpt2
from tests.gpt3core.interop.test_transformers import make

pytestmark = pytest.mark.xdist_group("transformers")

NAME = "gpt2:300"
TEXTS = ("the cat sat", "a house, and more", "to be or not to be", "x")


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.soak) for kind in ("dense", "alternating")])
def both(request, tmp_path):
    """Ours, and the harness's."""
    pytest.importorskip("lm_eval", reason="the extra lm-eval")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers
    from lm_eval.models.huggingface import HFLM

    from gpt3core.interop.harness import Decoder

    model = make(request.param)
    export_gpt2(model, tmp_path / "out", tokenizer=NAME)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    theirs = HFLM(
        pretrained=peer,
        tokenizer=transformers.AutoTokenizer.from_pretrained(tmp_path / "out"),
        batch_size=3,
        max_length=model.spec.n_ctx,
    )
    return Decoder(model, tokenizer.load(NAME)), theirs


def instances(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, n) for n, given in enumerate(arguments)]


def test_log_probabilities_are_those_of_the_harness(both):
    # of no context, of contexts that begin alike, with spaces at their ends, and of what the context does not hold
    contexts = ("", "on the mat", "on the mat ", "on the mat<|endoftext|> and", "word " * 40)
    asked = instances("loglikelihood", *[(context, f" {text}") for context in contexts for text in TEXTS[:3]])
    ours, theirs = (lm.loglikelihood(asked, disable_tqdm=True) for lm in both)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == (pytest.approx(other[0], abs=1e-4), other[1])
    assert len({round(logprob, 3) for logprob, _ in ours}) == len(asked)


def test_rolling_log_probabilities_are_those_of_the_harness(both):
    asked = instances("loglikelihood_rolling", *[(text,) for text in (*TEXTS, "many words " * 30)])
    ours, theirs = (lm.loglikelihood_rolling(asked, disable_tqdm=True) for lm in both)
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_texts_are_those_of_the_harness(both):
    (greedy,) = both[1].generate_until(instances("generate_until", (TEXTS[0], {"until": [], "max_gen_toks": 12})))
    how = ({"until": [greedy[4:6]], "max_gen_toks": 12}, {"until": ["\n\n"], "max_gen_toks": 5})
    asked = instances("generate_until", *[(text, dict(given)) for given in how for text in (*TEXTS, "word " * 40)])
    ours, theirs = (lm.generate_until(asked, disable_tqdm=True) for lm in both)
    assert ours == theirs
    assert ours[0] == theirs[0] == greedy.split(greedy[4:6])[0]


def test_what_is_not_greedy_is_refused(both):
    for given, sentence in (
        ({"do_sample": True, "temperature": 0.7}, "only greedy"),
        ({"max_gen_toks": 24}, "1 to 23"),
    ):
        with pytest.raises(ValueError, match=sentence):
            both[0].generate_until(instances("generate_until", ("x", {"until": ["\n"], **given})))


def test_without_the_harness_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "gpt3core.interop.harness", raising=False)
    with pytest.raises(UsageError, match=r"lm_eval is not installed: pip install 'isoflop\[lm-eval\]'"):
        importlib.import_module("gpt3core.interop.harness")
