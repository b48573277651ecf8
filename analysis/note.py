"""Something that a reader must know beside the numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something a reader must know."""

    code: str
    severity: str  # info | warning
    message: str
    runs: tuple[str, ...] = ()  # that its numbers rest on, as far as it is known which these are

    def said(self) -> dict[str, str]:
        """As files for scripts have it."""
        return {"code": self.code, "severity": self.severity, "message": self.message}
