"""Colours that all eyes tell apart, on white paper and on black: contrast by WCAG 2.2, colour blindness by Machado."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from dashboards.figures import catalogue, look

pytestmark = pytest.mark.xdist_group("study")
LINE, WORDS = 3.0, 4.5  # least contrasts, WCAG 2.2: success criteria 1.4.11 and 1.4.3
CSS = Path(look.__file__).parent.parent / "assets" / "isoflop.css"
PAPERS = (look.PAPER, look.DARK_PAPER)
PALETTES, SCALES = (look.PALETTE, look.DARK_PALETTE), (look.SCALE, look.DARK_SCALE)
EYES = {  # Machado, Oliveira, Fernandes 2009, table 1: severity 1.0, of linear RGB
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def linear(color):
    """Linear RGB of a colour of CSS, (3,)."""
    digits = color.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    share = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    darker, lighter = sorted(float(XYZ[1] @ linear(color)) for color in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def seen(color, eyes):
    """CIELAB of what such eyes see, (3,)."""
    share = XYZ @ np.clip(np.array(EYES[eyes]) @ linear(color), 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_contrast_is_that_of_the_standard():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005), "the grey that just fails"


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_lines_and_points_stand_out_from_the_paper(place):
    lines = [pair[place] for pair in look.COLOURS if pair[0] in (look.GREY, look.AXIS)]
    for color in (*PALETTES[place], *SCALES[place], *lines):
        assert contrast(color, PAPERS[place]) >= LINE, color


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_colours_are_told_apart_by_all_eyes(place, eyes):
    far = [seen(color, eyes) for color in PALETTES[place]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(far, 2)) > 10, "2.3 is just noticed"
    along = np.array([seen(color, eyes) for color in SCALES[place]])
    assert (np.diff(along[:, 0]) > 3).all(), "an ordered scale grows lighter step by step"
    assert (np.linalg.norm(np.diff(along, axis=0), axis=1) > 5).all()


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_words_of_figures_are_read_on_the_paper_and_have_a_colour_for_the_dark(studied, place):
    pairs, shown = dict(look.COLOURS), set()
    for page in catalogue.pages(studied):
        figure = page.figure.to_plotly_json()
        shown |= {note["font"]["color"] for note in figure["layout"].get("annotations", ()) if "color" in note["font"]}
    assert len(shown) > 2
    for color in shown:
        assert contrast((color, pairs[color])[place], PAPERS[place]) >= WORDS, color


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_words_of_pages_are_read_on_all_that_lies_below_them(place):
    light, dark = re.split(r"@media \(prefers-color-scheme: dark\)", CSS.read_text())
    named = dict(re.findall(r"--([a-z]+): (#[0-9a-f]+)", (light, dark.partition("@media")[0])[place]))
    for name, below in itertools.product(("ink", "faint", "link", "warning"), ("paper", "wash")):
        assert contrast(named[name], named[below]) >= WORDS, (name, below)
