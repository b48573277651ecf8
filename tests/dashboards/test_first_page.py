"""The first page: numbers as a paper prints them, the answer before the tables, all of it text; and the theme."""

import html
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from plotly.colors import hex_to_rgb

from analysis.estimation.solve import FitStatus
from analysis.laws import EXPONENT_NAMES
from analysis.output import documents, text
from analysis.output.answer import ELSEWHERE, MOST_TARGETS, answer, spelt
from analysis.output.notes import notes
from dashboards import offline, run_list, summary, typeset
from dashboards.figures import catalogue, look, style
from dashboards.figures.contours import contours
from dashboards.figures.published import over
from dashboards.figures.residuals import residuals
from dashboards.figures.triptych import triptych
from dashboards.pages import tables
from dashboards.templates import render
from gpt3core.words import THIN, Symbols, is_number, some

pytestmark = pytest.mark.xdist_group("study")


def test_what_speaks_of_parameters_is_printed_as_symbols(studied):
    """In notes and below figures alike; E, A and B are Latin in the paper."""
    reason = "95% intervals: alpha (-0.1 to 0.9), E (0 to 2)"
    laws = dict(studied.laws)
    for name in ("chinchilla", "kaplan_n"):
        fit = replace(laws[name].fit, status=FitStatus.NOT_APPLICABLE, reason=reason, theta=None)
        laws[name] = replace(laws[name], fit=fit)
    doubted = replace(studied, options=replace(studied.options, law="chinchilla"), laws=laws)
    said = [n.message for study in (doubted, replace(doubted, ensemble=None)) for n in notes(study)]
    said = [words for words in said if reason in words]
    assert len(said) == 2
    figures = [figure(doubted) for figure in (triptych, contours, residuals)]
    for words in (*said, *(page.about for page in (*figures, over(figures[0], doubted)))):
        assert "α (" in "".join(text for text, _ in typeset.pieces(words)), words


def test_a_page_does_not_send_its_reader_to_a_terminals_tables(studied):
    many = replace(studied, predictions=studied.predictions * (MOST_TARGETS + 1))
    said = ["".join(words for words, _ in parts) for _, parts in spelt(many)]
    shown = ["".join(words for words, _ in summary.linked(parts, lambda _: "")) for _, parts in spelt(many)]
    assert any(line.endswith(f"more targets{ELSEWHERE}") for line in said)
    assert shown == [line.removesuffix(ELSEWHERE) for line in said]


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("C=3.16e+12 FLOPs", "C=3.16 × 10<sup>12</sup> FLOPs"),
        ("at 1e14", "at 10<sup>14</sup>"),
        ("E 2.36e-09", "E 2.36 × 10<sup>−9</sup>"),
        ("L(N,D) = E + A/N^alpha + B/D^beta", "L(N,D) = E + A/N<sup>α</sup> + B/D<sup>β</sup>"),
        ("N* ~ C^0.56 (0.54 to 0.58)", "N* ~ C<sup>0.56</sup> (0.54 to 0.58)"),
        ("L = (C_c/C)^alpha_C", "L = (C<sub>c</sub>/C)<sup>α<sub>C</sub></sup>"),
        ("(N_c/N)^(alpha_N/alpha_D) + 1", "(N<sub>c</sub>/N)<sup>α<sub>N</sub>/α<sub>D</sub></sup> + 1"),
        ("[A/N + B/D]^alpha_D", "[A/N + B/D]<sup>α<sub>D</sub></sup>"),
        ("1 + B/B_crit(L), C_min", "1 + B/B<sub>crit</sub>(L), C<sub>min</sub>"),
        ("columns N_col, B_c and d_min", "columns N_col, B_c and d_min"),
        (
            "give min_compute=1e+17 or budgets=[3.16e12] at C=1e11",
            "give min_compute=1e+17 or budgets=[3.16e12] at C=10<sup>11</sup>",
        ),
        ("A/N'^alpha", "A/N'<sup>α</sup>"),
        ("C^-0.13", "C<sup>−0.13</sup>"),
        (
            Symbols("alpha_C 0.0587 (0.05 to 0.06), beta 3e-09"),
            "α<sub>C</sub> 0.0587 (0.05 to 0.06), β 3 × 10<sup>−9</sup>",
        ),
        ("(seeds of one point: alpha 0.30%, beta_D 0.20%)", "(seeds of one point: alpha 0.30%, beta_D 0.20%)"),
        ("1e11, 1e12.", "10<sup>11</sup>, 10<sup>12</sup>."),
        ("0.5 +- 0.1", "0.5 ± 0.1"),
        ("-4% (-0.1 to 0.9), 2026-11-29", "−4% (−0.1 to 0.9), 2026-11-29"),
        ("0.4 -> 0.7", "0.4 → 0.7"),
        ("L(N) = (1.9e10 / N)^0.14", "L(N) = (1.9 × 10<sup>10</sup> / N)<sup>0.14</sup>"),
        ("a run called x-1 or -x", "a run called x-1 or -x"),
        ("n12-1e5f00aa1e22", "n12-1e5f00aa1e22"),
        ("d8-0123456789e1", "d8-0123456789e1"),
        ("<b>1e5</b>", "&lt;b&gt;10<sup>5</sup>&lt;/b&gt;"),
    ],
)
def test_numbers_are_printed_as_a_paper_does(typed, printed):
    parts = "".join(typeset.tagged((html.escape(part, quote=False), tags)) for part, tags in typeset.pieces(typed))
    assert parts.replace(THIN, " ").replace("</sup><sup>", "") == printed


def test_every_exponent_of_a_law_has_its_letter():
    assert {name for name in EXPONENT_NAMES if typeset._greek(name) == name} == set()


def test_the_parameters_of_laws_are_greek_wherever_they_are_spelt(studied):
    fits = {n: replace(law, fit=replace(law.fit, status=FitStatus.OK)) for n, law in studied.laws.items()}
    law = dict(spelt(replace(studied, laws=fits)))["law"]
    groups = [
        ("", [t for _, found in summary.groups(studied, _nowhere) for t in found if t.title[:4] in ("Laws", "Expo")])
    ]
    known = {"name": "", "title": "", "current": "index", "css": "", "colours": [], "runs": None, "words": {}}
    drawn = {
        "pages": [style.Page(slug="s", title="", about="", figure=None, rows=None)],
        "drawn": {"s": ""},
        "code": {},
    }
    of_page = {"figure_of": lambda *_: None, "slugs": [], "lead": [], "notes": [], "next_command": ""}
    line = ("law", summary.linked(law, lambda runs: f"{len(runs)}.html"))
    report = render("summary.html", **known, **drawn, **of_page, others=[line], groups=groups)
    for markup in (report.partition("<dl>")[2], str(tables.linked(law, None))):
        assert re.search("α(<su[pb]>|</t|'| )", markup)
        assert not re.search(r"\b(alpha|beta)(_[A-Z])?\b", markup)


@pytest.mark.parametrize(
    "cell", ["3.94", "-", "1.2e+13", "552k (252k to 1.07M)", "3.83 to 4.01", "+12%", "-0.5%", "12,345"]
)
def test_numbers_stand_to_the_right(cell):
    assert is_number(cell)


@pytest.mark.parametrize("cell", ["ok", "d12", "E 1.4, A 34", "1, envelope", "up to 1"])
def test_words_do_not(cell):
    assert not is_number(cell)


def said(row):
    """The words of a row that is shown."""
    return [words for words, _ in row]


def _nowhere(_):
    """No run has an address."""
    return ""


def test_every_table_is_in_a_group_and_every_row_is_shown_or_counted(studied):
    found = {table.title: [row.words for row in table.rows] for table in text.tables(studied)}
    shown = [table for _, group in summary.groups(studied, _nowhere) for table in group]
    assert sorted(table.title for table in shown) == sorted(found)
    for table in shown:
        assert sorted(map(said, (*table.rows, *table.folded))) == sorted(found[table.title])
        assert table.rows
    names = [name for name, _ in summary.groups(studied, _nowhere)]
    assert names[0] == "What a larger run would reach"
    assert len(set(names)) == len(names), "the tables of a group stand together"


def test_what_is_in_the_training_text_has_its_table(studied):
    known = studied.runs.evals.assign(gram=8.0, dirty=0.0, accuracy_dirty=None, accuracy_clean=0.5, accuracy=0.4)
    found = replace(studied, runs=replace(studied.runs, evals=known))
    every = [table for _, group in summary.groups(found, _nowhere) for table in group]
    (shown,) = [table for table in every if table.title.startswith("Questions in the")]
    row = dict(zip(shown.header, said(shown.rows[0]), strict=True))
    items = int(known["items"].iloc[0])
    expected = {"words": "8", "accuracy": "0.4", "questions": f"{items:,}", "dirty": "0", "dirty accuracy": "-"}
    expected |= {"clean": f"{items:,}", "clean accuracy": "0.5", "clean share": "100%", "clean over all": "+22%"}
    assert {name: row[name] for name in expected} == expected
    (first, *_) = documents.to_json(found)["overlaps"]
    assert (first["clean"], first["accuracy_dirty"]) == (items, None)


def test_what_is_ill_determined_is_folded_away(studied):
    (laws,) = [t for _, group in summary.groups(studied, _nowhere) for t in group if t.title.startswith("Laws")]
    assert {said(row)[3] for row in laws.rows} <= {"ok", "not tested"}
    (shots,) = [t for _, group in summary.groups(studied, _nowhere) for t in group if t.title.startswith("Few-shot")]
    assert "rising" in {said(row)[0] for row in shots.rows}
    assert "guessing" not in {said(row)[0] for row in shots.rows}
    assert "guessing" in {said(row)[0] for row in shots.folded}
    (fits,) = [t for _, group in summary.groups(studied, _nowhere) for t in group if t.title.startswith("Ensemble")]
    assert fits.rows
    assert fits.folded
    assert {said(row)[1] for row in fits.folded} == {"0.00"}
    assert "0.00" not in {said(row)[1] for row in fits.rows}


def test_the_target_comes_first_and_nothing_is_said_twice_or_lost(studied):
    lines = answer(studied)
    lead, others = summary.split(lines)
    assert [label for label, _ in lead] == ["at 1e14", "trust", "weakest"]
    assert sorted([*lead, *others]) == sorted(lines)
    assert all(summary.figure_of(label, catalogue.SLUGS) for label, _ in lines)
    assert summary.split(others)[0] == []


class Tags(HTMLParser):
    def __init__(self, markup):
        super().__init__()
        self.found = []
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)


EVIL = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
    "\"'><svg onload=alert(1)>",
)


@pytest.mark.parametrize("evil", EVIL)
def test_words_from_outside_are_text_in_every_place_of_a_template(studied, evil):
    page = replace(style.Page(slug="s", title=evil, about=evil, figure=None, rows=None))
    known = {
        "name": evil,
        "pages": [page],
        "drawn": {"s": ""},
        "code": {"s": evil},
        "css": "",
        "colours": [[evil, evil]],
        "words": {evil: evil},
        "runs": None,
    }
    cells = {"header": [evil, "run_id"], "rows": [[evil, evil]]}
    row = [(evil, [(evil, "")]), (evil, [(f"{evil} ", ""), ("7", evil)])]
    table = summary.Shown(title=evil, header=[evil, evil], rows=[row], folded=[row], folded_are=evil)
    listed = run_list.RunList(study=None, sets={(evil,): "set-1"})
    note = type("Note", (), {"severity": "warning", "message": evil, "code": evil})
    made = (
        render("figure.html", **known, **cells, title=evil, current="s", page=page, count=1),
        render("list.html", **known, title=evil, current="index"),
        render(
            "comparison.html",
            **known,
            title=evil,
            current="index",
            comparisons=[(evil, [evil], [evil], [[evil]], (evil,))],
        ),
        render(
            "summary.html",
            **known,
            **{"title": evil, "current": "index", "lead": [(evil, [(evil, evil)])], "others": [(evil, [(evil, "")])]},
            **{
                "figure_of": lambda *_: None,
                "slugs": [],
                "groups": [(evil, [table])],
                "notes": [(note, row[1][1])] * 2,
            },
            next_command=evil,
        ),
        render(
            "runs.html",
            **{**known, "runs": listed, "header": [evil, "run"], "title": evil, "current": "runs"},
            rows=[run_list.Listed(cells=(evil, evil), sets=("set-1",))],
        ),
    )
    for markup in made:
        tags = Tags(markup).found
        assert tags.count("script") == 3, "plotly's, ours, and the colours"
        assert not {"img", "svg"} & set(tags)
        assert "49" not in re.sub(r"<style>.*?</style>", "", markup)


def test_a_name_is_shown_as_it_is_written():
    """lr^2 of a table is no power: whoever copies a name wants that name."""
    page = style.Page(slug="s", title="t", about="", figure=None, rows=None)
    known = {"name": "n", "pages": [page], "drawn": {"s": ""}, "code": {}, "css": "", "colours": [], "runs": None}
    header = ["run_id", "task", "law"]
    rows = [[offline._cell(value, column) for value, column in zip(("a^2", "b_1^2", "C^0.5"), header, strict=True)]]
    markup = render("figure.html", **known, header=header, rows=rows, title="t", current="s", count=1, page=page)
    assert "<td>a^2</td><td>b_1^2</td>" in markup
    assert "C<sup>0.5</sup>" in markup


def colours(node):
    """All colours that a figure names."""
    if isinstance(node, dict):
        for key, value in node.items():
            if re.search(r"color(scale|way)?$", key) and isinstance(value, str | list | tuple):
                yield from (v for v in ([value] if isinstance(value, str) else strings(value)))
            else:
                yield from colours(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from colours(value)


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from strings(one)


def luminance(colour):
    """Of WCAG 2.2."""
    found = (
        re.findall(r"[\d.]+", colour) if colour.startswith("rgb") else [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    )
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (float(v) / 255 for v in found[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["mix-2x", "2x", "x2", "d8x"])
def test_a_name_that_looks_like_a_factor_stays_one(name):
    words = f"A = base (24 runs), B = {name} (24 runs)"
    assert typeset.pieces(words) == [(words, ())]


def test_of_what_a_point_says_numbers_that_stand_alone_are_raised_and_those_in_names_are_not():
    """As figures.js finds them in the browser, on one line of it after the other."""
    (pattern,) = re.findall(r"\.replace\(/(.+)/g, \(_, mantissa", (offline.ASSETS / "figures.js").read_text())
    for words in ("C 1.23e+14 FLOPs", "N 1.23e+14", "1.23e+14"):
        assert re.findall(pattern, words) == [("1.23", "+14")]
    assert re.findall(pattern, "1 devices on lr-3.00e-4, 3.00e-4-b, lr=3.00e-4 or (3.00e-4)") == []


def test_labels_of_a_figure_have_their_powers_raised(studied):
    for page in catalogue.pages(studied):
        layout = page.figure.layout
        axes = [axis.title.text for axis in (*page.figure.select_xaxes(), *page.figure.select_yaxes())]
        labels = [*(note.text for note in layout.annotations), *(trace.name for trace in page.figure.data), *axes]
        hovers = [trace.hovertemplate for trace in page.figure.data if trace.hovertemplate]
        assert not [words for words in hovers if re.search(r"%\{[xyz](:[^}]*s)?\}", words)], (
            "plotly prints all digits, and T for 10^12"
        )
        texts = [str(text) for trace in page.figure.data for text in np.atleast_1d(trace.text)]
        hovers += [re.sub("<b>.*?</b>", "", text) for text in texts]  # names of runs
        said = "".join(part for part, _ in typeset.pieces(page.about))
        unset = re.compile(r"\d[eE][-+]?\d|\^|\+-|\balpha\b|\bbeta\b|_[cCND]\b")
        assert not [words for words in (*labels, *hovers, said) if words and unset.search(words)], page.slug


def test_every_colour_of_a_figure_has_one_for_the_dark_that_is_seen_there(studied):
    light, dark = zip(*look.COLOURS, strict=True)
    assert len(set(light)) == len(light)
    assert not set(light) & set(dark), "else a figure that is painted twice would change"
    named = {c for page in catalogue.pages(studied) for c in colours(page.figure.to_plotly_json())}
    assert named <= set(light)
    paper = luminance(dict(look.COLOURS)[look.PAPER])
    for on_white, on_black in look.COLOURS:
        if len(on_white) != 4 and "0.1" not in on_white and on_white not in (look.PAPER, look.VEIL, look.GRID):
            assert (luminance(on_black) + 0.05) / (paper + 0.05) > 3, f"{on_black} for {on_white}"


def test_colours_of_lines_are_as_far_apart_in_the_dark_as_on_paper():
    """By Ottosson's OKLab (2020), in which distances are those that eyes see."""
    on = dict(look.COLOURS)
    light = [*look.PALETTE, look.GREY]
    nearest = [
        min(np.linalg.norm(oklab(a) - oklab(b)) for a, b in itertools.combinations(colours, 2))
        for colours in (light, [on[color] for color in light])
    ]
    assert nearest[1] >= nearest[0]


def oklab(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(hex_to_rgb(color)) / 255]
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(lab) @ np.cbrt(np.array(cones) @ linear)


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (1_540_200.0, "1,540,200"),
        (1234.5, "1234.5"),
        (1234.0, "1,234"),
        (1.0002e11, "1.0002e+11"),
        (2e11, "2e+11"),
        (0.19253, "0.19253"),
        (7, "7"),
    ],
)
def test_counts_of_a_report_are_in_full(value, printed):
    assert offline._cell(value) == printed


@pytest.mark.parametrize("seed", [20240101, np.int64(20240101), 20240101.0])
def test_a_seed_is_a_name_and_no_count(seed):
    assert offline._cell(seed, "seed") == "20240101"


def test_of_many_names_the_first_are_said_and_the_others_counted():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefghijk")) == "a, b, c, d, e, f, g, h and 3 more"
