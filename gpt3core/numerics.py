"""How the arithmetic of a run is done: precision and kernel, by name. No torch."""

from __future__ import annotations

from dataclasses import dataclass

AUTO = "auto"  # timed once on the machine that trains, recorded with the run, kept on resume
PRECISIONS = (AUTO, "fp32", "bf16", "fp16")
NATIVE, WIDE = "native", "wide"
BUILT = (NATIVE, WIDE)  # kernels with functions in C: they cannot be compiled, and their attention drops nothing
KERNELS = (AUTO, "softmax", "sdpa", *BUILT)
COMPILED = ("blocks", "all")  # by torch.compile: blocks one by one; these, and what the loss does to logits
COMPILES = (AUTO, "none", *COMPILED)


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """A choice of both; weights, optimizer and loss stay fp32 in any precision."""

    precision: str  # fp32 | bf16 | fp16 (autocast; with a loss scale, and never chosen by "auto")
    # softmax | sdpa: of the attention | native: functions of our own wherever torch makes several passes
    # wide: native's functions, in bf16 too; in fp32 with the products of layers and head by all of the processor's
    # vector width, which those in bf16 have anyway
    kernel: str

    @property
    def element_bytes(self) -> int:
        """Of one number in matrix products and what they keep."""
        return 4 if self.precision == "fp32" else 2

    @property
    def autocast(self) -> str | None:
        """The torch type of matrix products, by name, where it is another than the weights'."""
        return {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}[self.precision]

    def satisfies(self, precision: str, kernel: str) -> bool:
        """Whether a specification's wishes ("auto" is none, and is never fp16) are met."""
        allowed = self.precision != "fp16" if precision == AUTO else self.precision == precision
        return allowed and kernel in (AUTO, self.kernel)


CANDIDATES = tuple(
    Numerics(precision=p, kernel=k) for p in PRECISIONS[1:] for k in KERNELS[1:] if k != WIDE or p != "fp16"
)
