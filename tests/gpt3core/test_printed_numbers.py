"""Numbers as words: counts, durations and amounts, and powers of ten as a paper prints them."""

import ast
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3core import words
from tests.test_house import modules


def test_numbers_are_printed_as_in_a_paper():
    assert words.powers(1.234e14) == "1.23\u202f×\u202f10¹⁴"
    assert words.powers(1.0004e12) == "10¹²", "and no 1.00 times it"
    assert words.powers(3e-4) == "3.00\u202f×\u202f10⁻⁴"
    assert words.powers(0.012) == "0.012"
    assert words.whole(65536) == "65,536"
    assert (words.number_of(1, "step"), words.number_of(3302, "step")) == ("1 step", "3,302 steps")


@given(st.floats(1e-30, 1e30))
def test_three_digits_are_kept_in_powers(value):
    shown = words.powers(value).replace("\u202f×\u202f10", "e").replace("10⁻", "1e-")
    shown = re.sub("^10(?=[⁰¹²³⁴-⁹])", "1e", shown).translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-"))
    assert math.isclose(float(shown), value, rel_tol=5.1e-3)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (3599.7, "1:00:00"), (3700, "1:01:40"), (359_999, "99:59:59")),
        *((359_999.6, "4.2 days"), (17.5 * 86_400, "17.5 days"), (None, "unknown"), (math.inf, "unknown")),
    ],
)
def test_a_duration_is_a_clock_s_and_from_100_hours_on_days(seconds, said):
    assert words.duration(seconds) == said


def test_thousands_have_no_power_of_ten():
    values = (1741.2, -12_345.0, 99_960.0, 1234.5e3, 0.0123, 170.0, None)
    assert [words.number(v) for v in values] == ["1740", "-12300", "1e+05", "1.23e+06", "0.0123", "170", "-"]


def test_amounts_are_three_digits_in_full():
    assert [words.amount(value) for value in (330_123, 99.96, 0.01052, 12)] == ["330,000", "100", "0.0105", "12"]
    assert words.cost(12_345.6, 24_691.2, "GPU") == "12,300 GPU-hours (24,691.20 USD)"
    assert words.cost(0.104, 0.0, "core") == "0.104 core-hours"


def test_one_module_has_the_signs_and_spaces_of_print():
    """A second minus or thin space would let two pages print one number in two ways."""
    signs = {words.THIN, words.MINUS, "\u2009"}
    for name, path in modules().items():
        found = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)} & signs
        assert name == "gpt3core.words" or not found, name
