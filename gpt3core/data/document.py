"""The two sides of a text, which are told apart document by document."""

from __future__ import annotations

SIDES = TRAIN, VALIDATION = "train", "validation"
