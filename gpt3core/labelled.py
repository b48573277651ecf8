"""The labelled examples that a trained run is fine-tuned on, as part of its identity (Radford et al. 2018). No torch.

Their content is hashed, wherever it comes from: which file, or which task, is no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gpt3core.checks import as_floats, require_between, require_positive

FORMS = ("classification", "entailment", "similarity", "multiple_choice")  # figure 1 of the paper
MULTIPLE_CHOICE = "multiple_choice"
SPECIAL = 3  # tokens that the parent does not know: start, delimiter and extract, after its own


@dataclass(frozen=True, kw_only=True)
class LabelledSpec:
    """Which examples, in which form, and what beside them is trained for (section 3.2)."""

    source: str = field(metadata={"hashed": False})  # the task that they are of
    files: tuple[str, ...] = field(default=(), metadata={"hashed": False})  # where it reads them, if it does
    held_out: int = field(metadata={"hashed": False})  # questions asked of the task, which are never trained on
    sha256: str  # of all that there are to train on
    form: str
    count: int  # of them that are trained on: the first in an order set by the seed
    classes: tuple[str, ...] = ()  # none where each example has choices of its own
    ways: int  # sequences of an example
    length: int  # tokens of the longest sequence, to which all are filled up
    lm_weight: float = 0.5  # of the language-model loss beside the answers' own: the paper's lambda
    dropout: float = 0.1  # of what the classifier reads

    def __post_init__(self) -> None:
        as_floats(self)
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "files", tuple(self.files))
        if self.form not in FORMS:
            raise ValueError(f"labelled.form={self.form!r}: allowed are {', '.join(FORMS)}")
        require_positive(self, "count", "ways", "length", where="labelled.")
        require_between(self, 0, 1e3, "lm_weight", where="labelled.")
        require_between(self, 0, 0.9, "dropout", where="labelled.")
        if (self.form == MULTIPLE_CHOICE) == bool(self.classes) or len(self.classes) == 1:
            raise ValueError(
                f"labelled.classes={list(self.classes)}: two or more, and none for examples with choices of their own"
            )

    @property
    def outputs(self) -> int:
        """Numbers that the classifier gives for what it reads: one a class, or one for a choice."""
        return len(self.classes) or 1

    @property
    def unit_tokens(self) -> int:
        """Positions of one example in all its sequences."""
        return self.ways * self.length
