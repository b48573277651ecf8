"""The ``model`` section of each ladder's recipe: what all of its sizes share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NanoModel:
    """The shape that all sizes of a nano ladder share."""

    n_layer: int = 2
    n_head: int | None = None  # by default heads about 32 wide
    n_ctx: int = 128
    attention: str = "alternating"  # banded,dense; or other kinds of layers in turn: dense, banded, strided, fixed
    band: int = 4  # keys of a banded layer
    stride: int = 128  # of strided and fixed layers (Child et al. 2019)
    summary: int = 8  # keys at the end of a fixed layer's blocks that all later ones see
    mup_base_width: int = 0  # d_model at which muP (Yang et al. 2022) is the standard parametrisation; 0: no muP
    mup_base_d_head: int | None = None  # d_head there; by default of the ladder's size of that width


@dataclass
class ShapesModel:
    """What all shapes of a list share."""

    n_ctx: int = 128
    attention: str = "alternating"
    band: int = 4
    stride: int = 128
    summary: int = 8
    mup_base_width: int = 0  # as above
    mup_base_d_head: int | None = None


@dataclass
class Gpt3Model:
    """What Table 2.1 leaves open."""

    n_ctx: int = 2048
    attention: str = "alternating"
    band: int = 128
    stride: int = 128
    summary: int = 8
    mup_base_width: int = 0  # as above
    mup_base_d_head: int | None = None
