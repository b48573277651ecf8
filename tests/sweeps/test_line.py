"""The whole line: what it refuses before anything is started."""

import pytest

from gpt3core.errors import UsageError
from sweeps import line


def test_what_cannot_run_is_refused_before_a_head_is_started(known_text, monkeypatch):
    def started():
        raise AssertionError("a head was started")

    monkeypatch.setattr(line, "head", started)
    for words in (["budgets=[-1]"], ["recipe=gpt3"], ["recipe=smoke", "data.max_epochs=0.001"]):
        with pytest.raises((UsageError, ValueError)):
            line.main(words)
