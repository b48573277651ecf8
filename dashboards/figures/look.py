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
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8C564B",
)  # Okabe and Ito 2008, for all eyes
# what is ordered (a size, a budget) has its place on this scale: viridis without its end, which is pale on paper
SCALE = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b")
DARK_SCALE = ("#7b5ea7", "#6f76bd", "#5d8cc4", "#4aa0c0", "#3fb4b0", "#4fc597", "#78d478", "#abe060", "#e4ea5c")
PAPER, INK, GRID, AXIS, GREY = "#ffffff", "#1a1a1a", "#e4e4e4", "#888", "#777777"
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
_LINES = [
    *((GREY, "#a2a2a2"), ("#000000", "#f2f2f2")),
    *(("#0072B2", "#3B8EEA"), ("#D55E00", "#F28C3C"), ("#009E73", "#2FC79B"), ("#CC79A7", "#E29BC4")),
    *(("#E69F00", "#F7C548"), ("#56B4E9", "#9BD8FF"), ("#8C564B", "#B0704F")),
]
COLOURS = [
    *((PAPER, "#141414"), (INK, "#e6e6e6"), (GRID, "#303030"), (AXIS, "#909090"), ("#000", "#f4f4f4")),
    *_LINES,
    *((faint(light), faint(dark, 0.17)) for light, dark in _LINES),
    *zip(SCALE, DARK_SCALE, strict=True),
    *zip(STEPS, _steps(DARK_SCALE), strict=True),
]
