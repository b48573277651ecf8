"""Numbers lead to the runs that they rest on: these are those that were fitted, and the address shows no others."""

import re
import shlex
from urllib.parse import urlsplit

import plotly.graph_objects as go
import pytest

from analysis import fit
from analysis.estimation import fitted_laws, isoflop
from analysis.output import evidence, text
from analysis.output.answer import answer, spelt
from analysis.settings import DesignSettings, StudySettings
from dashboards import query, report, typeset
from dashboards.figures.style import Page
from dashboards.live import Live, View
from dashboards.pages import answer as page_of_answer
from dashboards.pages import runs, shell, tables
from dashboards.run_list import RunList
from gpt3core import cli
from sweeps.watching.run_table import RunTable

pytestmark = pytest.mark.xdist_group("study")


def behind(study):
    """Every set of runs that a number of the answer or of a table leads to."""
    found = [part for _, parts in spelt(study) for _, part in parts]
    found += [evidence.of_row(study, title, row) for title, _, rows in text.tables(study) for row in rows]
    return {part for part in found if part}


def test_an_address_shows_the_runs_of_a_number_and_no_others(simulated, studied):
    live, rows = Live(StudySettings(runs=str(simulated))), RunTable(simulated).look().rows
    assert len(behind(studied)) > 5
    for wanted in behind(studied):
        opened = urlsplit(tables.address(wanted))
        assert opened.path == runs.PATH
        state, said = shell.taken(runs, live, f"?{opened.query}")
        asked = query.parse(state["filter"])
        assert (said, asked.problem) == ("", "")
        assert tuple(sorted(row.run_id for row in asked.keep(rows))) == wanted


def test_runs_beyond_what_an_address_takes_have_none(studied):
    many = [f"d128-{i:012x}" for i in range(2000)]
    assert tables.address(many) == ""
    assert tables.address(many[:1000])
    parts = [("loss 3.1", tuple(many))]
    assert "href" not in str(tables.linked(parts, store=True))
    assert "href" not in str(tables.linked([("loss 3.1", ("d8-1",))], store=False)), "runs of a table have no page"


def test_a_law_is_the_same_fitted_to_the_runs_behind_it_alone(studied):
    table, rho = studied.table, studied.options.rho
    # that a budget's compute is the mean of all of its runs moves the law of its minimum in the fifth digit
    for name, close in (("chinchilla", 1e-6), ("kaplan_d", 1e-6), ("compute_frontier", 1e-3)):
        law = studied.laws[name]
        alone = table[table.run_id.isin(evidence.of_law(studied, law))].reset_index(drop=True)
        again = fitted_laws.fit_once(law.fit.law, alone, isoflop.analyse(alone, draws=0, seed=0), rho)
        assert again.fit.params == pytest.approx(law.fit.params, rel=close)


def test_so_is_the_minimum_of_a_budget(studied):
    (minima,) = [rows for title, _, rows in text.tables(studied) if title.startswith("IsoFLOP minima")]
    for row, parabola in zip(minima, studied.minima.parabolas, strict=True):
        ids = evidence.of_row(studied, "IsoFLOP minima", row)
        again = isoflop.parabola(isoflop.Runs.of(studied.table[studied.table.run_id.isin(ids)]))
        assert again.n_star == pytest.approx(parabola.n_star, nan_ok=True)
        assert studied.table.set_index("run_id").budget_flops[list(ids)].nunique() == 1


def test_the_numbers_of_a_sentence_are_found_with_their_intervals():
    said = "L: E 1.69 (1.5 to 1.9), N* ~ C^0.56 (0.54 to 0.58); 552k tokens, K=4: 0.3% of d8-12ab, 1e-05 and 3 runs."
    found = [part for part, is_number in typeset.numbers(said) if is_number]
    assert found == ["1.69 (1.5 to 1.9)", "C^0.56 (0.54 to 0.58)", "552k", "4", "0.3%", "1e-05", "3"]
    assert "".join(part for part, _ in typeset.numbers(said)) == said


def test_an_answer_links_what_it_was_fitted_to_and_what_stayed_out(studied):
    by_label = dict(spelt(studied))
    assert dict(answer(studied))["runs"].startswith(f"{len(studied.table)} of {len(studied.everything)} fitted")
    sets = [part for _, part in by_label["runs"]]
    assert set(sets[0]) == set(studied.table.run_id)
    assert set(sets[2]) == set(studied.everything.run_id)
    (at,) = [parts for label, parts in by_label.items() if label.startswith("at ")]
    assert set(at[-1][1]) >= set(evidence.of_law(studied, studied.laws["chinchilla"]))


def test_a_run_that_a_report_does_not_list_has_no_address(studied):
    """A run that the sweep pruned has no result, and so no row."""
    listed = RunList(study=studied)
    assert listed.address(("d8-000000000000",)) == ""
    assert listed.address(tuple(studied.table.run_id[:2])) == "runs.html#set-1"
    assert sum(bool(row.sets) for row in listed.rows()) == 2


def test_a_report_lists_the_runs_of_every_number(studied, tmp_path, monkeypatch):
    page = Page(slug="s", title="s", about="s", figure=go.Figure(), rows=studied.table)
    monkeypatch.setattr(report, "_pages", lambda _: [page])
    report.write(studied, tmp_path)
    index, listed = ((tmp_path / f"{name}.html").read_text() for name in ("index", "runs"))
    asked = set(re.findall(r'<a class="behind" href="runs.html#([^"]+)">', index))
    within = re.findall(r'<tr class="([^"]*)"><td>([^<]+)</td>', listed)
    assert sorted(run for _, run in within) == sorted(studied.everything.run_id)
    shown = {name: tuple(sorted(run for names, run in within if name in names.split())) for name in asked}
    assert set(shown.values()) == behind(studied)
    for name in asked:
        assert f"#{name}:target ~ .wide tbody tr:not(.{name}) {{ display: none; }}" in listed
        assert listed.count(f'id="{name}"') == 1


def test_the_first_page_has_the_command_that_the_terminal_prints(simulated, studied):
    given = [f"runs={simulated}", "N=total", "exclude=[a b,c]", "target_compute=[1e14]", "bootstrap=20"]
    live = Live(cli.settings(StudySettings(), given))
    _, lines = page_of_answer._sentences(live, View(number=1, answer=spelt(studied), study=studied))
    (code,) = [part.children for line in lines for part in line._traverse() if getattr(part, "id", "") == "answer-next"]
    said, printed = (shlex.split(words) for words in (code, fit.following(given)))
    assert said[:3] == printed[:3] == ["python", "-m", "analysis.design"]
    assert cli.settings(DesignSettings(), said[3:]) == cli.settings(DesignSettings(), printed[3:])
    assert "answer-next" not in str(page_of_answer._sentences(live, View(number=1, answer=spelt(studied))))
