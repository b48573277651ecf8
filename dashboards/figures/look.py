"""What all figures look like, known before anything draws: their buttons, their colours and those for the dark."""

from __future__ import annotations

from plotly.colors import hex_to_rgb, sample_colorscale

# of every figure: plotly 7 shows a button that uploads it to a cloud service unless told not to
CONFIG = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["toImage"],
}
# after Okabe and Ito 2008, for all eyes, but darker: a line has three times the luminance of paper against it, a name
# that stands in one of the first three 4.5 times (WCAG 2.2, 1.4.11 and 1.4.3)
PALETTE = ("#0072B2", "#C05000", "#00805C", "#CC79A7", "#C48400", "#4A9BC9", "#000000", "#70433A")
DARK_PALETTE = ("#3B8EEA", "#F28C3C", "#2FC79B", "#E29BC4", "#F7C548", "#9BD8FF", "#f2f2f2", "#B0704F")
# what is ordered (a size, a budget) has its place on this scale: the hues of viridis, lighter step by step, but dark
# enough for paper to its end
SCALE = ("#380744", "#371e5b", "#2e3666", "#214b67", "#185e67", "#0d7161", "#1f8354", "#4a9239", "#7e9d12")
DARK_SCALE = ("#7b5ea7", "#6f76bd", "#5d8cc4", "#4aa0c0", "#3fb4b0", "#4fc597", "#78d478", "#abe060", "#e4ea5c")
DARK_PAPER = "#141414"
PAPER, INK, GRID, AXIS, GREY = "#ffffff", "#1a1a1a", "#e4e4e4", "#888", "#707070"
VEIL, DARK_VEIL = "rgba(255,255,255,0.8)", "rgba(20,20,20,0.8)"  # paper behind words that stand on lines
BAND = 0.12  # opacity
SHADES = 64


def faint(color: str, opacity: float = BAND) -> str:
    """A colour of a band, that lets what is behind it through."""
    red, green, blue = hex_to_rgb(color)
    return f"rgba({red},{green},{blue},{opacity})"


def _steps(colors: tuple[str, ...]) -> list[str]:
    """SHADES colours between those of a scale."""
    return [str(color) for color in sample_colorscale(list(colors), [i / (SHADES - 1) for i in range(SHADES)])]


STEPS = _steps(SCALE)
# each colour that a figure may have, on white paper and on black: a reader's theme is put on by exchanging them
_LINES = [(GREY, "#a2a2a2"), *zip(PALETTE, DARK_PALETTE, strict=True)]
COLOURS = [
    *((PAPER, DARK_PAPER), (VEIL, DARK_VEIL)),
    *((INK, "#e6e6e6"), (GRID, "#303030"), (AXIS, "#909090"), ("#000", "#f4f4f4")),
    *_LINES,
    *((faint(light), faint(dark, 0.17)) for light, dark in _LINES),
    *zip(SCALE, DARK_SCALE, strict=True),
    *zip(STEPS, _steps(DARK_SCALE), strict=True),
]
