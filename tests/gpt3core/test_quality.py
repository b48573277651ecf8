"""The quality classifier and its keep rule: numpy's Pareto, the closed form, scikit-learn."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from gpt3core.data.quality import Classifier, counts, judge, keep, keep_probability, train, uniform

IDS = [f"document-{i}" for i in range(20_000)]


def documents(n: int, seed: int = 0) -> list[tuple[str, bool]]:
    """Curated and raw text of words that both use, at other rates."""
    rng = np.random.default_rng(seed)
    curated = rng.random(n) < 0.3
    tilt = np.linspace(0, 1.5, 2000)[np.arange(2000) * 7 % 2000]  # not by how frequent a word is
    found = []
    for kind in curated:
        p = np.exp(tilt if kind else -tilt) / np.arange(1, 2001)
        found.append((" ".join(f"w{i}" for i in rng.choice(2000, rng.integers(0, 120), p=p / p.sum())), bool(kind)))
    return found


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return train(documents(1000))


@pytest.mark.parametrize("score", [0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
def test_the_keep_rule_is_numpys_pareto_and_its_closed_form(score):
    by_numpy = (np.random.default_rng(0).pareto(9, 200_000) > 1 - score).mean()
    ours = keep(IDS, np.full(len(IDS), score)).mean()
    exact = (2 - score) ** -9
    assert keep_probability(np.array([score]))[0] == pytest.approx(exact)
    for share, n in ((by_numpy, 200_000), (ours, len(IDS))):
        assert abs(share - exact) <= 4 * (exact * (1 - exact) / n) ** 0.5


def test_what_is_drawn_depends_on_id_seed_and_purpose_alone():
    scores = np.full(len(IDS), 0.8)
    whole = keep(IDS, scores, seed=3)
    parts = [keep(IDS[a : a + 777], scores[a : a + 777], seed=3) for a in range(0, len(IDS), 777)]
    assert (whole == np.concatenate(parts)).all()
    assert (whole != keep(IDS, scores, seed=4)).any()
    u = uniform(IDS, "a")
    assert abs(np.corrcoef(u, uniform(IDS, "b"))[0, 1]) < 4 / len(IDS) ** 0.5
    assert np.histogram(u, 10, (0, 1))[0] / len(IDS) == pytest.approx(np.full(10, 0.1), abs=0.01)


def test_a_score_does_not_know_the_batch(classifier):
    texts = [text for text, _ in documents(300, seed=2)]
    whole = classifier.scores(texts)
    assert (whole == np.concatenate([classifier.scores([text]) for text in texts])).all()
    assert (whole[::-1] == classifier.scores(texts[::-1])).all()
    assert len(classifier.scores([])) == 0


def test_scores_are_the_features_times_the_weights(classifier):
    texts = [text for text, _ in documents(50, seed=3)]
    assert classifier.scores(texts) == pytest.approx(
        special.expit(counts(texts) @ classifier.weights + classifier.bias)
    )
    squared = (counts(["to be or not to be"]) * np.sqrt(6)).toarray()
    assert sorted(squared[squared > 0]) == pytest.approx([1, 1, 2, 2])


def test_training_finds_the_optimum(classifier):
    """At the minimum of a convex objective its slope is zero."""
    given = documents(1000)
    features, labels = counts([text for text, _ in given]), np.array([kind for _, kind in given])
    share = np.where(labels, 0.5 / labels.mean(), 0.5 / (~labels).mean())
    error = share * (special.expit(features @ classifier.weights + classifier.bias) - labels)
    assert abs(error.sum()) < 1e-3
    assert np.abs(features.T @ error + classifier.weights).max() < 1e-3


@pytest.mark.soak
def test_weights_do_not_depend_on_the_threads_of_blas():
    code = (
        "from tests.gpt3core.test_quality import documents, train\n"
        "print(train(documents(200)).weights.tobytes().hex()[:100_000])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for threads in ("1", "2")
    ]
    assert runs[0] == runs[1] != ""


def test_weights_are_scikit_learns(classifier):
    linear = pytest.importorskip("sklearn.linear_model", reason="make peers installs scikit-learn")
    given = documents(1000)
    features, labels = counts([text for text, _ in given]), np.array([kind for _, kind in given])
    theirs = linear.LogisticRegression(C=1.0, class_weight="balanced", tol=1e-8, max_iter=1000).fit(features, labels)
    mine = classifier.scores([text for text, _ in given])
    assert mine == pytest.approx(theirs.predict_proba(features)[:, 1], abs=1e-3)


def test_a_classifier_tells_new_documents_and_its_judgement_is_right(classifier):
    given = documents(600, seed=5)
    labels = np.array([kind for _, kind in given])
    scores = classifier.scores([text for text, _ in given])
    found = judge(scores, labels, ["books" if kind else "web" for kind in labels])
    pairs = scores[labels][:, None] - scores[~labels][None]
    assert found.auc == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
    assert found.auc > 0.9
    assert sum(n for n, _, _ in found.calibration) == 600
    assert found.kept["books"] == pytest.approx(((2 - scores[labels]) ** -9).mean())
    assert found.kept["books"] > 5 * found.kept["web"]
    milder = judge(scores, labels, ["all"] * 600, alpha=1.0)
    assert milder.kept["all"] == pytest.approx((1 / (2 - scores)).mean()), "by the rule that was asked for"


def test_a_saved_classifier_is_the_same_and_another_file_is_refused(classifier, tmp_path):
    classifier.save(tmp_path / "weights.npy")
    texts = [text for text, _ in documents(20)]
    assert (Classifier.load(tmp_path / "weights.npy").scores(texts) == classifier.scores(texts)).all()
    np.save(tmp_path / "other.npy", np.zeros(3))
    with pytest.raises(ValueError, match="holds no classifier"):
        Classifier.load(tmp_path / "other.npy")


def test_one_kind_of_document_is_refused():
    with pytest.raises(ValueError, match="3 curated and 0 raw"):
        train([("a", True)] * 3)
    assert np.isnan(judge(np.array([0.5]), np.array([True]), ["a"]).auc)
