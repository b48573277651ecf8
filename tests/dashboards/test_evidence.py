"""Numbers lead to the runs that they rest on: these are those that were fitted, and the address shows no others."""

import json
import re
import shlex
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import dash
import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis import api, fit
from analysis.estimation import fitted_laws, isoflop
from analysis.note import Note
from analysis.output import evidence, notes, text
from analysis.output.answer import answer, spelt
from analysis.settings import DesignSettings, StudySettings
from dashboards import query, report, summary, typeset
from dashboards.figures.style import Page
from dashboards.live import Live, View
from dashboards.pages import answer as page_of_answer
from dashboards.pages import runs, shell, tables
from dashboards.run_list import RunList
from dashboards.run_sets import FEW, MOST_KEPT, RunSets
from gpt3core import cli
from gpt3core.store import run_sets
from gpt3core.words import Name, flops
from sweeps.watching.run_table import Row, RunTable

pytestmark = pytest.mark.xdist_group("study")


def behind(study):
    """Every set of runs that a number of the answer, of a table or of a note leads to."""
    found = [note.runs for note in study.notes if any(is_number for _, is_number in typeset.numbers(note.message))]
    found += [part for _, parts in spelt(study) for _, part in parts]
    found += [part for table in text.tables(study) for row in table.rows for cell in row.cells for _, part in cell]
    return {part for part in found if part}


def behind_row(row):
    """The runs behind a row of a table."""
    return sorted({run for cell in row.cells for _, part in cell for run in part})


def test_an_address_shows_the_runs_of_a_number_and_no_others(simulated, studied):
    live, rows = Live(StudySettings(runs=str(simulated))), RunTable(simulated).look().rows
    assert len(behind(studied)) > 5
    for wanted in behind(studied):
        opened = urlsplit(live.sets.address(wanted))
        assert opened.path == runs.PATH
        state, said = shell.taken(runs, live, f"?{opened.query}")
        asked = query.parse(state["filter"], live.sets.find)
        assert (said, asked.problem) == ("", "")
        assert tuple(sorted(row.run_id for row in asked.keep(rows))) == wanted


def test_ten_thousand_runs_have_a_short_address_that_lasts(tmp_path):
    """Whoever opened it may open it again: after the app has ended, and after the number rests on others."""
    many = [f"d128-{i:012x}" for i in range(10_000)]
    rows = [Row(run_id=run_id, size="d128") for run_id in [*many, "d8-1"]]
    sets = RunSets(tmp_path)
    address = sets.address(reversed(many))
    assert len(address) < 50
    assert sets.address(many) == address
    (words,) = parse_qs(urlsplit(address).query)["filter"]
    assert "no number rests on these runs" in query.parse(words, RunSets(tmp_path).find).problem, "never opened"
    for opened in (sets, RunSets(tmp_path)):
        asked = query.parse(f"{words} d128-", opened.find)
        assert (asked.problem, len(asked.keep(rows))) == ("", 10_000)
        (other,) = query.parse(words.replace("=", "!="), opened.find).keep(rows)
        assert other.run_id == "d8-1"
    (file,) = (tmp_path / "sets").iterdir()
    file.write_text(json.dumps(many[1:]))
    assert query.parse(words, RunSets(tmp_path).find).problem, "a file that holds others than it is named by"
    assert query.parse("set=../store", sets.find).problem
    assert query.parse("set>1", sets.find).problem == "set>1: give set= or set!="


def test_a_set_that_was_opened_is_written_until_it_is_whole(tmp_path):
    many = [f"d8-{i}" for i in range(FEW + 1)]
    name = run_sets.name_of(many)

    def opened():
        sets = RunSets(tmp_path)
        sets.learn([many])
        assert sets.find(name) == set(many)
        return sets

    (folder := tmp_path / "sets").write_text("in the way")
    sets = opened()
    folder.unlink()
    assert sets.find(name) and RunSets(tmp_path).find(name) == set(many), "tried again"
    for damaged in ("", "[]", json.dumps(many[1:])):
        (folder / f"{name}.json").write_text(damaged)
        opened()
        assert RunSets(tmp_path).find(name) == set(many)


def numbered(number):
    return [f"d{number}-{i}" for i in range(FEW + 1)]


def test_the_answer_leads_to_its_runs_whatever_is_chosen_beside_it(tmp_path):
    sets = RunSets(tmp_path)
    sets.learn([numbered(0), numbered(1)])
    for number in range(2, 2 + 2 * MOST_KEPT):
        sets.address(numbered(number))
    named = [run_sets.name_of(numbered(number)) for number in range(3)]
    assert [sets.find(name) is not None for name in named] == [True, True, False]


def test_of_the_sets_that_readers_opened_no_more_is_kept_than_of_those_known(tmp_path, monkeypatch):
    monkeypatch.setattr(run_sets, "keep", lambda root, ids: None)
    sets = RunSets(tmp_path)
    for number in range(2 * MOST_KEPT):
        sets.address(ids := numbered(number))
        assert sets.find(run_sets.name_of(ids)) == set(ids)
    assert len(sets._opened) == MOST_KEPT


def test_sets_of_the_same_runs_share_their_names():
    one, other = (evidence.runs(f"d8-{i}" for i in range(3)) for _ in range(2))
    assert all(a is b for a, b in zip(one, other, strict=True))


def test_a_store_that_nobody_may_write_knows_its_sets_as_long_as_the_app_runs(tmp_path):
    (tmp_path / "sets").write_text("in the way")
    sets = RunSets(tmp_path)
    (words,) = parse_qs(urlsplit(sets.address(map(str, range(99)))).query)["filter"]
    assert len(sets.find(words.removeprefix("set="))) == 99


def test_runs_of_a_table_have_no_page():
    assert "href" not in str(tables.linked([("loss 3.1", ("d8-1",))], None))


def test_a_law_is_the_same_fitted_to_the_runs_behind_it_alone(studied):
    table, rho = studied.table, studied.options.rho
    # that a budget's compute is the mean of all of its runs moves the law of its minimum in the fifth digit
    for name, close in (("chinchilla", 1e-6), ("kaplan_d", 1e-6), ("compute_frontier", 1e-3)):
        law = studied.laws[name]
        alone = table[table.run_id.isin(evidence.of_law(studied, law))].reset_index(drop=True)
        again = fitted_laws.fit_once(law.fit.law, alone, isoflop.analyse(alone, draws=0, seed=0), rho)
        assert again.fit.params == pytest.approx(law.fit.params, rel=close)


def test_so_is_the_minimum_of_a_budget(studied):
    for row, parabola in zip(text.minima(studied).rows, studied.minima.parabolas, strict=True):
        ((_, ids),) = row.cells[0]
        again = isoflop.parabola(isoflop.Runs.of(studied.table[studied.table.run_id.isin(ids)]))
        assert again.n_star == pytest.approx(parabola.n_star, nan_ok=True)
        assert studied.table.set_index("run_id").budget_flops[list(ids)].nunique() == 1


def test_the_numbers_of_a_sentence_are_found_with_their_intervals():
    said = "L: E 1.69 (1.5 to 1.9), N* ~ C^0.56 (0.54 to 0.58); 552k tokens, K=4: 0.3% of d8-12ab, 1e-05 and 3 runs."
    found = [part for part, is_number in typeset.numbers(said) if is_number]
    assert found == ["1.69 (1.5 to 1.9)", "C^0.56 (0.54 to 0.58)", "552k", "4", "0.3%", "1e-05", "3"]
    assert "".join(part for part, _ in typeset.numbers(said)) == said
    typed = "give min_tokens=4e5 and run 3 sizes"
    assert typeset.numbers(typed) == [
        ("give ", False),
        ("min_tokens=4e5", False),
        (" and run ", False),
        ("3", True),
        (" sizes", False),
    ]


def test_names_in_a_sentence_are_no_numbers():
    names = ("2024", "2024-05-lr3", "lr/1e-05", "7")
    said = "3 runs (2024-05-lr3, 2024, 1B-v2 and lr/1e-05) at 1.5, 1,000-fold"
    assert [part for part, is_number in typeset.numbers(said, names) if is_number] == ["3", "1.5"]
    assert "".join(part for part, _ in typeset.numbers(said, names)) == said
    pieces = summary.linked([(said, names)], lambda _: "/runs")
    assert [part for part, to in pieces if to] == ["3", "1.5"]
    assert [part for part, _ in pieces if isinstance(part, Name)] == ["2024-05-lr3", "2024", "lr/1e-05"]
    left_out = summary.linked([("3 runs, without 12", ("a",))], lambda _: "/runs", ("12",))
    assert [part for part, to in left_out if to] == ["3"]


def test_what_is_weakest_leads_to_the_runs_that_it_speaks_of(studied):
    """Of one budget without a minimum, of several, and of what is told of the fit."""
    for many in (1, 2):
        parabolas = [replace(p, inside=i >= many, reason="") for i, p in enumerate(studied.minima.parabolas)]
        found = replace(studied, minima=replace(studied.minima, parabolas=parabolas, family=None))
        said = dict(spelt(replace(found, notes=notes.notes(found))))["weakest"]
        linked = {number: set(runs) for words, runs in said for number, _ in typeset.numbers(words)}
        for p in parabolas[:many]:
            assert linked[flops(p.budget)] == set(p.run_ids)
    whole = replace(studied, notes=[Note(code="no-scaling", severity="warning", message="2 of 3", runs=("d8-1",))])
    assert dict(spelt(whole))["weakest"] == [("2 of 3", ("d8-1",))]


def test_an_answer_links_what_it_was_fitted_to_and_what_stayed_out(studied):
    by_label = dict(spelt(studied))
    assert dict(answer(studied))["runs"].startswith(f"{len(studied.table)} of {len(studied.everything)} fitted")
    sets = [part for _, part in by_label["runs"]]
    assert set(sets[0]) == set(studied.table.run_id)
    assert set(sets[2]) == set(studied.everything.run_id)
    (at,) = [parts for label, parts in by_label.items() if label.startswith("at ")]
    assert set(at[-1][1]) >= set(evidence.of_law(studied, studied.laws["chinchilla"]))


def test_backtests_influence_and_rules_lead_to_their_runs(studied):
    table = studied.everything.set_index("run_id")
    for row in text.coverage(studied).rows:
        ids = behind_row(row)
        assert 0 < table.budget_flops[ids].nunique() <= int(row.words[1]), "budgets are predicted, some from several"
    assert table.C[ids].min() > table.C.min()
    in_common = {"size": "N", "budget": "budget_flops"}
    for row in text.influence(studied).rows:
        (left_out, kind, count, *_), ids = row.words, behind_row(row)
        assert len(ids) == int(count)
        assert ids == [left_out] if kind == "run" else table[in_common[kind]][ids].nunique() == 1
    for row in text.rules(studied).rows:
        counted = row.words[2].partition(":")[0]
        assert len(behind_row(row)) == (int(counted) if counted.isdecimal() else 0)


def test_a_run_that_a_report_does_not_list_has_no_address(studied):
    """A run that the sweep pruned has no result, and so no row."""
    listed = RunList(study=studied)
    assert listed.address(("d8-000000000000",)) == ""
    assert listed.address(tuple(studied.table.run_id[:2])) == "runs.html#set-1"
    assert sum(bool(row.sets) for row in listed.rows()) == 2


def test_a_table_without_names_of_sizes_has_none_in_the_list_of_runs():
    table = pd.DataFrame({"N": [1e6 * n for n in range(1, 9)], "D": 1e9, "loss": [3 - 0.1 * n for n in range(8)]})
    sizes = {row.cells[1] for row in RunList(study=api.fit(table, bootstrap=20)).rows()}
    named = {row.cells[1] for row in RunList(study=api.fit(table.assign(size="d8"), bootstrap=20)).rows()}
    assert (sizes, named) == ({""}, {"d8"})


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


def test_a_first_page_without_an_answer_says_why_and_where_to_look(simulated, tmp_path):
    of_store = page_of_answer._none_yet(Live(StudySettings(runs=str(simulated))), View(problem="the sweep has no runs"))
    assert "The sweep has no runs" in str(of_store)
    assert "href='/sweep'" in str(of_store)
    of_table = page_of_answer._none_yet(Live(StudySettings(runs=str(tmp_path / "runs.csv"))), View())
    assert "The laws are being fitted." in str(of_table)
    assert "href" not in str(of_table)


def test_a_page_without_an_answer_follows_why_there_is_none(simulated):
    live = Live(StudySettings(runs=str(simulated)))
    callbacks = shell.app(live).callback_map
    show = next(known for key, known in callbacks.items() if "answer-lead" in key)["callback"].__wrapped__
    lead, *_, shown = show(1, None, None)
    assert "The laws are being fitted." in lead
    live.view = View(problem="the store is away")
    lead, *_, shown = show(2, None, shown)
    assert "The store is away" in lead
    with pytest.raises(dash.exceptions.PreventUpdate):
        show(3, None, shown)
