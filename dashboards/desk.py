"""The fits of the page Laws, by what they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from dashboards import refit
from dashboards.behind import Behind, Found
from dashboards.live import Live, View
from dashboards.refit import Choice, Fit

Of: TypeAlias = Annotated[list[Any], (int, dict[str, str])]  # what is shown: the number of its study, and the choice


class Desk:
    """The fits of one app, by what they are of; that of what it was started with is the view's, and goes with it."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._fits: Behind[Fit] = Behind(lambda fit: len(fit.study.everything))

    def ask(self, view: View, state: Mapping[str, str]) -> Found[Fit]:
        """What there is of the fit of a choice; nothing is waited for where that is as the app was started."""
        chosen, live = refit.choice(state), self.live
        if key := self._key(chosen, view):
            return self._fits.ask(key, view.number, lambda: refit.fit(live, chosen, view))
        return Found(value=refit.fit(live, chosen, view), of=view.number, done=True)

    def shown(self, of: Of | None) -> Fit | None:
        """The fit that a browser shows; None before the first, and where it is forgotten."""
        view = self.live.view
        if of is None or view.study is None:
            return None
        chosen = refit.choice(of[1])
        if key := self._key(chosen, view):
            return self._fits.peek(key)
        return refit.fit(self.live, chosen, view)

    def _key(self, chosen: Choice, view: View) -> str:
        """What is fitted for a choice, whatever the reasons behind it are; empty as the app was started."""
        assert view.study is not None, "who asks has waited for the first fit"
        asked = refit.settings(self.live.given, chosen, view.study.everything.run_id)
        return "" if asked == self.live.given else repr(asked)
