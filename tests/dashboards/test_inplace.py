"""What is said in place is HTML's: an attribute that is only there or not is spelt so."""

import json

import pytest
from dash import html

from dashboards.pages import inplace


def test_an_attribute_is_there_or_not_and_has_no_word_of_python():
    said = inplace.said(html.Details("x", open=True, hidden=False, title=None, tabIndex=0, className="a"))
    assert json.loads(said) == [["details", {"open": "", "tabIndex": "0", "class": "a"}, ["x"]]]


def test_what_is_no_attribute_of_html_is_a_defect():
    with pytest.raises(AssertionError):
        inplace.said(html.P("x", style={"color": "red"}))
