"""Texts that figures of one fit and the next share are kept once, and not for ever."""

import weakref

from analysis.output import texts
from dashboards.figures.style import of_runs


class Text(str):
    """That it is gone can be seen, unlike of a plain one."""


def test_what_is_asked_for_stays_and_what_is_not_goes(monkeypatch):
    monkeypatch.setattr(texts, "_kept", [{}, {}])
    monkeypatch.setattr(texts, "MOST", 10)
    asked, other = Text("asked"), weakref.ref(text := Text("other"))
    texts.shared([asked, text])
    del text
    for number in range(0, 100, 5):
        texts.shared(f"{n}" for n in range(number, number + 5))
        assert texts.shared(["".join(["as", "ked"])])[0] is asked
    assert other() is None
    assert sum(map(len, texts._kept)) < 4 * texts.MOST


def test_figures_share_what_their_points_say(studied):
    one, other = (of_runs(studied.table) for _ in range(2))
    for said in ("text", "customdata"):
        assert all(a is b for a, b in zip(one[said], other[said], strict=True))
