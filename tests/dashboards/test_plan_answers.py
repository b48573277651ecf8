"""The page Plan without a browser: what is asked, what is answered, and the command that says the same."""

import shlex
from dataclasses import replace

import numpy as np
import pytest

from analysis import api
from analysis.runs.conventions import Convention, Parameters
from analysis.settings import DesignSettings, StudySettings
from dashboards import plan
from dashboards.figures.plan import plan as figure
from gpt3core import cli
from gpt3core.errors import UsageError

pytestmark = pytest.mark.xdist_group("study")  # whose fit it shows
HIGHEST = 1e13


@pytest.fixture(scope="module")
def known(studied):
    return plan.outlook(studied)


def test_an_empty_address_asks_for_ten_times_the_largest_run():
    asked, wrong = plan.asked(plan.STATE, HIGHEST)
    assert wrong == []
    assert (asked.compute, asked.largest, asked.batch, asked.target, asked.gpu) == (1e14, 1e14, 4, "loss", "H100")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"compute": "a lot", "largest": "-1", "batch": "1e9", "for": "fame", "gpu": "<b>H1000</b>", "days": "nan"},
        {"batch": "2.7"},
        {"compute": "1e99", "largest": "inf", "batch": "0", "for": "", "gpu": "h100", "days": "-3"},
    ],
)
def test_nonsense_in_an_address_is_said_and_the_default_stands_in_its_place(nonsense):
    asked, wrong = plan.asked({**plan.STATE, **nonsense}, HIGHEST)
    assert asked == plan.asked(plan.STATE, HIGHEST)[0]
    assert len(wrong) == len(nonsense)
    assert all(
        sentence.startswith(f"{name}={value}") for sentence, (name, value) in zip(wrong, nonsense.items(), strict=True)
    )


@pytest.mark.parametrize("decades", [-1.0, -0.35, 0.0, 1.0, 2.55, 4.0])
def test_a_slider_and_what_is_typed_say_the_same(decades):
    text = plan.slid(decades, HIGHEST)
    assert plan.decades(text, HIGHEST) == pytest.approx(decades, abs=0.003)
    assert plan.decades("", HIGHEST) == plan.decades("what", HIGHEST) == 1.0
    assert plan.decades("1e30", HIGHEST) == plan.SHOWN


def test_the_answer_is_the_study_s_own_prediction(studied, known):
    (said,) = studied.predictions
    found = plan.at(known, said.compute)
    assert found == said
    lines = dict(plan.reached(found))
    assert lines["loss"].startswith(f"{said.loss:.3f} (")
    assert "1.0 decades beyond" in lines["compute"]


def test_the_curves_go_from_the_smallest_run_to_far_beyond_the_largest(studied, known):
    along = known.along
    assert along.C.iloc[0] == pytest.approx(studied.table.C.min())
    assert along.C.iloc[-1] == pytest.approx(studied.table.C.max() * 10**plan.SHOWN)
    assert (np.diff(along.loss) < 0).all()
    assert ((along.loss_low < along.loss) & (along.loss < along.loss_high)).all()
    assert ((along.N_low <= along.N) & (along.N <= along.N_high))[along.N_low.notna()].all()


def test_a_larger_run_continues_the_shape_that_the_runs_share(studied, known):
    asked, _ = plan.asked({"gpu": "A100"}, float(studied.table.C.max()))
    p = plan.at(known, asked.compute)
    run = plan.trained(known, p, asked)
    table = studied.runs.table
    assert run.spec.model.n_ctx == table.n_ctx.iloc[0]
    assert run.spec.model.vocab_size == table.vocab.iloc[0]
    lines = dict(plan.taken(run, asked))
    assert "1 A100" in lines["time"]
    assert "GPU-hours at 1.8 USD" in lines["price"]
    assert plan.why(run)[0].startswith(lines["layout"])
    total = replace(studied, convention=Convention(n=Parameters.TOTAL, c=studied.convention.c))
    assert plan._ladder(total).embeddings


def test_the_command_says_what_is_asked_and_proposes_the_same(simulated, studied):
    given = StudySettings(runs=str(simulated), min_tokens=4e5, exclude=["a b"])
    asked, _ = plan.asked({"compute": "2e14", "batch": "2", "largest": "3e13"}, float(studied.table.C.max()))
    words = shlex.split(plan.command(given, asked))
    assert words[:3] == ["python", "-m", "analysis.design"]
    typed = cli.settings(DesignSettings(), words[3:])
    assert typed == plan.settings(given, asked)
    given = replace(given, exclude=[])
    found, said = plan.design(given, asked), api.design(plan.settings(given, asked))
    assert found.commands == said.commands
    assert found.table.equals(said.table)
    assert (found.table.C <= 3e13 * 1.01).all()


def test_the_figure_marks_the_planned_run_on_its_curves(studied, known):
    p = plan.at(known, float(studied.table.C.max()) * 30)
    page = figure(studied, known.along, p)
    marked = [trace for trace in page.figure.data if trace.mode == "markers+text"]
    assert [trace.y[0] for trace in marked] == pytest.approx([p.loss, p.n, p.d])
    assert {trace.x[0] for trace in marked} == {p.compute}
    curve = next(trace for trace in page.figure.data if trace.name == "loss of a new run" and trace.mode == "lines")
    on = np.exp(np.interp(np.log(p.compute), np.log(np.array(curve.x)), np.log(np.array(curve.y))))
    assert on == pytest.approx(p.loss, rel=0.002)
    drawn = [y for trace in page.figure.data if trace.mode in ("lines", "markers", "markers+text") for y in trace.y]
    assert set(drawn) <= set(page.rows.filter(regex="^(loss|N|D)").to_numpy(float).ravel()), "handed out"
    assert len(figure(studied, known.along, None).figure.data) == len(page.figure.data) - 3


def test_a_study_without_a_law_has_nothing_to_plan_by(studied):
    with pytest.raises(UsageError, match="nothing to plan by"):
        plan.outlook(replace(studied, ensemble=None))
