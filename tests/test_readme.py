"""What README and docs name is there, and what README types is taken."""

import os
import re
import shlex
import subprocess
import sys

import pandas as pd
import pytest

from analysis.settings import CompareSettings, DesignSettings, FitSettings, ReportSettings
from gpt3core import cli
from sweeps import command
from tests.sweeps.conftest import known_text  # noqa: F401
from tests.test_house import CODE, ROOMS

README = (CODE / "README.md").read_text()
PAGES = [CODE / "README.md", CODE / "CONTRIBUTING.md", *sorted((CODE / "docs").glob("*.md"))]
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")
SETTINGS = {
    "analysis.fit": FitSettings,
    "analysis.compare": CompareSettings,
    "analysis.design": DesignSettings,
    "dashboards.report": ReportSettings,
}


def blocks(text, kind=""):
    """The blocks of code of a page."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language == kind]


def typed(start):
    """The words of README's commands that begin so, without what is said of them."""
    lines = "".join(blocks(README)).replace("\\\n", " ").splitlines()
    found = [line.partition("  #")[0].removeprefix("$ ") for line in lines]
    return [shlex.split(line.partition(start)[2]) for line in found if start in line]


def labelled(text):
    """Lines that begin with a label, as the answer's do in a terminal: what each says, whole."""
    whole = re.sub(r"\n {9}", " ", text)
    return {label.strip(): said for label, said in re.findall(r"^([a-z][a-z0-9 ]{8})(\S.*)", whole, re.MULTILINE)}


def numbers(text):
    return [float(n) for n in NUMBER.findall(text)]


def anchors(path):
    """What a link to a page's headings may end with."""
    heads = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_files_and_modules_are_there(page):
    text = page.read_text()
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    rooms = "|".join(ROOMS)
    for name in re.findall(rf"`((?:tests|docs|notebooks)/[\w/.-]+|(?:{rooms})/[\w/.-]+\.\w+)`", text):
        assert (CODE / name).exists() or "NAME" in name, name
    for name in re.findall(rf"python -m ((?:tests|{rooms})\.[\w.]+)", text):
        file = CODE / name.replace(".", "/").removesuffix("/NAME")
        assert file.is_dir() or file.with_suffix(".py").exists(), name


def test_the_recipe_of_a_text_is_planned_by_every_command_that_names_it(isolated, known_text, monkeypatch):  # noqa: F811
    monkeypatch.chdir(isolated)
    (isolated / "my-text").mkdir()
    (isolated / "my-text" / "a.txt").write_text("A text.")
    (written,) = blocks(README, "yaml")
    (isolated / "mine.yaml").write_text(written.replace("/data/my-text", str(isolated / "my-text")))
    orders = [words for words in typed("sizes.py") if "recipe=mine.yaml" in words]
    orders += [words for words in typed("slurm.sh") if "recipe=mine.yaml" in words]
    assert len(orders) > 4
    for words in orders:
        assert command.sweep([*dict.fromkeys([*words, "--plan"])], usage="") == 0, words


def test_the_plan_prints_what_is_pasted(isolated, known_text, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "100")
    known_text.train_tokens = 5_218_208  # of the starter text, by GPT-3's tokenizer
    (words,) = [words for words in typed("sizes.py") if "sizes=[1.3B,13B,175B]" in words]
    assert command.sweep(words, usage="") == 0
    printed = "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())
    (pasted,) = re.findall(r"^(gpt3 on H100.*?)^\.\.\.", README, re.MULTILINE | re.DOTALL)
    assert printed.startswith(pasted)


@pytest.mark.parametrize("module", SETTINGS)
def test_settings_that_are_typed_are_settings_that_there_are(module):
    assert typed(f"-m {module}")
    for words in typed(f"-m {module}"):
        cli.settings(SETTINGS[module](), words)


def test_the_lines_of_python_run(isolated, monkeypatch, capsys):
    monkeypatch.chdir(isolated)
    rows = [(n, d, 1.8 + 480 / n**0.34 + 2000 / d**0.35) for n in (1e7, 4e7, 1.6e8, 6.4e8) for d in (1e9, 4e9, 1.6e10)]
    pd.DataFrame(rows, columns=["N", "D", "loss"]).to_csv("runs.csv", index=False)
    (code,) = blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_make_sweep_prints_what_is_pasted(tmp_path):
    """To 1%, and where another kernel trained to what README says of those."""
    environment = {**os.environ, "ISOFLOP_ROOT": str(tmp_path / "runs"), "COLUMNS": "100"}
    line = [sys.executable, "-m", "sweeps.line", "recipe=laptop"]
    printed = subprocess.run(line, cwd=CODE, env=environment, capture_output=True, text=True, check=True).stdout
    pasted, said = labelled(README), labelled(printed)
    as_pasted = "numerics: bf16, kernel wide" in printed
    for label in ("runs", "law", "size", "at 1e14", "trust", "weakest", *(["scores", "more"] if as_pasted else [])):
        assert NUMBER.split(said[label]) == NUMBER.split(pasted[label]), label
        spent = 1 if label == "runs" else 0  # core-hours
        found, wanted = (numbers(words)[: -spent or None] for words in (said[label], pasted[label]))
        assert found == pytest.approx(wanted, rel=0.01 if as_pasted else 0.1), label
