"""The line that a benchmark ends with."""

from pathlib import Path

import pytest

from tests.benchmarks.target import target


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("a_seconds", 0.05, "<=", 1), "TARGET a_seconds 0.05 <= 1 met"),
        (("a_seconds", 1.5, "<=", 1), "TARGET a_seconds 1.5 <= 1 missed"),
        (("ratio", 62.2, ">=", 50.0), "TARGET ratio 62.2 >= 50 met"),
        (("ratio", 50.0, ">", 50.0), "TARGET ratio 50 > 50 missed"),
        (("ratio", float("nan"), "<=", 1.0), "TARGET ratio nan <= 1 missed"),
        (("peer", None, "<", 0.27), "TARGET peer - < 0.27 not-run"),
    ],
)
def test_a_target_is_one_line(capsys, given, line):
    assert target(*given) is line.endswith(" met")
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(
    ("given", "match"), [(("two words", 1, "<", 2), "one word"), (("a", 1, "=<", 2), "allowed are")]
)
def test_what_a_script_could_not_read_is_refused(given, match):
    with pytest.raises(ValueError, match=match):
        target(*given)


@pytest.mark.parametrize("script", sorted(Path(__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_ends_with_a_target(script):
    text = script.read_text()
    assert "target(" in text or "def main(" not in text
