"""Text that a run writes behind a page: by a process of its own, whose one sentence is what a reader sees."""

import json
import shlex

import pytest

from dashboards import writing
from dashboards.writing import Written
from gpt3core import cli
from gpt3core.errors import StoreError, UsageError
from gpt3core.generate.command import GenerateSettings
from sweeps.watching.run_table import Row

ROW = Row(run_id="d8-1", size="d8", status="done", parameters=1e6)
TOLD = """
import json, os, sys
print(json.dumps([sys.argv[1:], sys.stdin.buffer.read().decode(), os.environ['CUDA_VISIBLE_DEVICES']]))
"""


@pytest.fixture
def instead(monkeypatch):
    """Have Python run other code than what generates."""

    def runs(code):
        words = writing._words
        monkeypatch.setattr(writing, "_words", lambda *given: ["-S", "-c", code, *words(*given)[2:]])

    return runs


def test_the_page_types_the_command_that_it_shows(tmp_path, instead):
    prompt = "It's $(id) --help\n<b>\u00e9"
    shown = shlex.split(writing.command(tmp_path, "d8-1", prompt))
    assert shown[:3] == ["python", "-m", "gpt3core.generate"]
    words, texts = cli.verbatim(shown[3:], ("prompt", "prompt_file"))
    assert texts == {"prompt": prompt}
    given = cli.settings(GenerateSettings(), words)
    given.how()
    assert (given.run, given.runs, given.tokens, given.seed) == ("d8-1", str(tmp_path), writing.TOKENS, 0)
    instead(TOLD)
    *others, last = shown[3:]
    assert last == f"prompt={prompt}"
    told = json.loads(writing.write(tmp_path, ROW, prompt).text)
    assert told == [[*others, "prompt_file=-"], prompt, ""], "no other user reads the prompt, and no GPU is taken"


def test_a_prompt_of_any_length_arrives_and_what_is_noted_of_the_text_is_said(tmp_path, instead):
    instead(
        "import sys; print(len(sys.stdin.buffer.read())); print('a warning\\nnote: it ends there', file=sys.stderr)"
    )
    assert writing.write(tmp_path, ROW, "\u00e9" * 500_000) == Written(text="1000000", notes=("it ends there",))


def test_what_goes_wrong_is_one_sentence(tmp_path, instead, monkeypatch):
    with pytest.raises(UsageError, match=r"12.9B parameters"):
        writing.write(tmp_path, Row(run_id="13B-1", size="13B", status="done", parameters=12.9e9), "")
    with pytest.raises(UsageError, match=r"half a character \('\\ud83d' at 1\)"):
        writing.write(tmp_path, ROW, "a\ud83d")
    instead("import sys; print('a warning\\nerror: its checkpoint is gone', file=sys.stderr); sys.exit(2)")
    with pytest.raises(StoreError, match=r"^its checkpoint is gone$"):
        writing.write(tmp_path, ROW, "")
    instead("import time; time.sleep(60)")
    monkeypatch.setattr(writing, "SECONDS", 0.1)
    with pytest.raises(StoreError, match="within 0 s"):
        writing.write(tmp_path, ROW, "")
