"""What words mean is said once: on the first page as in the README."""

import re

import pytest

from analysis.settings import StudySettings
from dashboards import report
from dashboards.glossary import WORDS
from dashboards.live import Live
from dashboards.pages import answer
from tests.test_house import CODE

pytestmark = pytest.mark.xdist_group("study")


def test_the_readme_says_the_same():
    table = (CODE / "README.md").read_text().partition("| word | meaning |")[2].partition("\n\n")[0]
    said = dict(re.findall(r"^\| ([^|-]+) \| ([^|]+) \|$", table, re.MULTILINE))
    assert len(said) > 5
    assert said.items() <= WORDS.items()


def test_the_first_page_has_them_folded_away(studied, isolated):
    report.write(studied, isolated / "report")
    page = (isolated / "report" / "index.html").read_text()
    assert "<summary>What the words mean</summary>" in page
    assert "<dd>natural logarithms: a loss of 3 nats is a perplexity of e<sup>3</sup> = 20</dd>" in page
    assert "What the words mean" in str(answer.layout(Live(StudySettings(runs="nowhere")), {}))
