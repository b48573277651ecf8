"""The command that shows prompts, and the file of the documentation that adds a task."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt3core.errors import UsageError
from gpt3core.evals import command, tasks

CODE = Path(__file__).resolve().parents[3]


def test_a_prompt_is_shown_as_it_is_read(capsys):
    assert command.main(["task=addition_2", "shots=2", "items=2"]) == 0
    out = capsys.readouterr().out
    pages = re.split(r"--- item \d of 2: 2 examples, \d+ tokens\n", out)[1:]
    asked = r"\n\nQ: What is \d+ plus \d+\?\n\nA:"
    assert all(re.fullmatch(rf"({asked} \d+){{2}}{asked}\n--- answer ' \d+'\n", page) for page in pages), out
    assert len(pages) == 2


def test_lines_are_those_of_the_released_files(capsys):
    assert command.main(["task=three_operations", "items=20", "--json"]) == 0
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        assert re.fullmatch(r"\n\nQ: What is \(\d [-+*] \d\) [-+*] \d\?\n\nA:", line["context"])
        assert re.fullmatch(r" -?\d+", line["completion"])
        assert (line["shots_shown"], line["stop"]) == (0, "\n")
    assert command.main(["task=reversed_words", "items=20", "shots=1", "--json"]) == 0
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        shown, word, asked = re.fullmatch(r"\n(\w+) = (\w+)\n(\w+) =", line["context"]).groups()
        assert (shown[::-1], asked[::-1]) == (word, line["completion"].strip())


def test_all_tasks_are_listed(capsys):
    assert command.main([]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:-2]] == tasks.names()
    assert "cloze_DOMAIN" in out
    of_files = {line.split()[0] for line in out.splitlines() if "JSON lines: " in line}
    assert {"labelled", "piqa"} <= of_files
    assert not {"copy", "addition_2", "episodes_sorting"} & of_files


def test_words_of_a_corpus_are_shown(capsys, tales):
    assert command.main(["task=cloze_tales", f"corpus={tales}", "tokenizer=gpt2", "shots=1"]) == 0
    assert "; choices '" in capsys.readouterr().out


def test_a_full_context_is_said(capsys):
    command.main(["task=addition_2", "shots=8", "n_ctx=64"])
    assert re.match(
        r"--- item 1 of 1: \d examples of the 8 asked, for the context is full, \d+ tokens", capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["shots=1"], "task=NAME is needed"),
        (["task=adition_2"], "unknown task 'adition_2', did you mean addition_2"),
        (["task=addition_2", "shots=-1"], "shots=-1: it must lie from 0"),
        (["task=addition_2", "items=0"], "items=0: it must lie from 1"),
        (["task=addition_2", "draw=1"], "draw=1 has no effect with shots=0"),
        (["task=addition_2", "corpus=starter"], "corpus=starter has no effect: addition_2 takes no words from it"),
        (["task=copy"], "task copy: its words are those of a corpus: give one, like corpus=starter"),
        (["task=hellaswag"], "task hellaswag: its items come from a file, JSON lines with activity_label, ctx"),
        (
            ["task=addition_2", "shots=2000"],
            "task addition_2: K=2000 examples are asked for, and there are 1000 items to draw them from",
        ),
        (
            ["task=addition_2", "n_ctx=9"],
            "1 of 1 questions are longer than the context of 9 tokens without any example",
        ),
        (["task=addition_2", "--jsn"], "unknown flag --jsn, did you mean --json"),
        (["task=addition_2", "shot=1"], "unknown key 'shot', did you mean shots"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(words, sentence):
    with pytest.raises((ValueError, UsageError), match=sentence):
        command.main(words)


def test_the_documented_file_adds_a_task(tmp_path):
    documented = (CODE / "docs" / "evaluation.md").read_text()
    (code,) = re.findall(r"## A task of your own\n.*?```python\n(.*?)```", documented, re.DOTALL)
    assert len(code.rstrip().splitlines()) <= 20
    shutil.copytree(CODE / "gpt3core", tmp_path / "gpt3core", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "gpt3core" / "evals" / "tasks" / "last_letter.py").write_text(code)
    asked = [sys.executable, "-m", "gpt3core.evals", "task=last_letter", "shots=3", "--json"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [*json.loads(done.stdout)["context"].split("\n"), json.loads(done.stdout)["completion"]]
    assert len(lines) == 5
    for shown in [*lines[:3], lines[3] + lines[4]]:
        word, letter = re.fullmatch(r"(\w+) ends in (\w)", shown).groups()
        assert word[-1] == letter
    shutil.copy(
        tmp_path / "gpt3core" / "evals" / "tasks" / "last_letter.py", tmp_path / "gpt3core/evals/tasks/twice.py"
    )
    again = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True)
    assert (
        "error: task last_letter is in twice.py and in another file of gpt3core.evals.tasks: rename one" in again.stderr
    )
