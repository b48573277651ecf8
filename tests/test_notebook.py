"""The notebook runs from top to bottom, what it says of the prediction holds, and README says the same.

``python -m tests.test_notebook`` runs it and keeps what its cells print, and pictures of its figures by Chromium: they
are seen where nothing is run.
"""

import ast
import base64
import contextlib
import io
import json
import re

import plotly.graph_objects as go
import pytest

from analysis.output.answer import answer
from tests.browser import gallery
from tests.test_house import CODE
from tests.test_readme import NUMBER, README, labelled, numbers

pytestmark = pytest.mark.xdist_group("notebook")

NOTEBOOK = CODE / "notebooks" / "from_recipe_to_prediction.ipynb"


def cells():
    """The notebook, and its cells of code."""
    notebook = json.loads(NOTEBOOK.read_text())
    return notebook, [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(source, names):
    """What a cell prints, and the value of its last expression, as Jupyter shows it."""
    body, last = ast.parse(source).body, None
    if body and isinstance(body[-1], ast.Expr):
        last = ast.Expression(body.pop().value)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)  # noqa: S102
        value = None if last is None else eval(compile(last, "cell", "eval"), names)  # noqa: S307
    return printed.getvalue(), value


@pytest.fixture(scope="module")
def told():
    """What every cell shows, and the names that they leave."""
    names = {}
    return [run("".join(cell["source"]), names) for cell in cells()[1]], names


def test_the_notebook_tells_the_story_in_ten_cells(told):
    shown, names = told
    assert len(shown) == 10
    assert all(printed or value is not None for printed, value in shown), "every cell shows something"
    assert all(cell["outputs"] for cell in cells()[1]), "and what it shows is kept"
    assert [type(value) for _, value in shown[5:7]] == [go.Figure, go.Figure], "figures are plain plotly"
    prediction, measured = names["prediction"], names["measured"]
    assert prediction.interval_new_run[0] < measured["loss"] < prediction.interval_new_run[1]
    assert prediction.interval_n[0] < measured["N"] < prediction.interval_n[1]
    assert len(names["runs"]) == 24
    assert 0 < names["proposed"].table.interval.iloc[-1] < 1


def test_readme_has_the_notebooks_answer(told):
    """Within 1%: other libraries draw other bootstraps."""
    pasted, said = labelled(README), dict(answer(told[1]["study"]))
    for label in ("law", "size", "at 1e14", "trust", "weakest"):
        assert NUMBER.split(pasted[label]) == NUMBER.split(said[label]), label
        assert numbers(pasted[label]) == pytest.approx(numbers(said[label]), rel=0.01), label
    assert set(numbers(said["runs"])) < set(numbers(pasted["runs"])), "a table does not know its text and time"
    (prose,) = re.findall(
        r"It said (.*)\nfor ten times its largest budget; trained afterwards, that gave (\S+)\.", README
    )
    assert numbers(pasted["at 1e14"])[:3] == numbers(prose[0])
    assert float(prose[1]) == told[1]["measured"]["loss"] == gallery.MEASURED[1]


def main():
    """Run it and keep what it shows."""
    from playwright.sync_api import sync_playwright

    def picture(figure):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=gallery.CHROMIUM, args=gallery.FLAGS.split())
            return base64.b64encode(gallery.drawn(browser, figure, 800, 20 + int(figure.layout.height or 480))).decode()

    notebook, found = cells()
    names = {}
    for count, cell in enumerate(found, 1):
        printed, value = run("".join(cell["source"]), names)
        cell["execution_count"], cell["outputs"] = count, []
        if printed:
            cell["outputs"].append(
                {"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}
            )
        if value is not None:
            is_figure = isinstance(value, go.Figure)
            data = {"image/png": picture(value)} if is_figure else {"text/plain": repr(value).splitlines(keepends=True)}
            if hasattr(value, "to_html") and not is_figure:
                data["text/html"] = value.to_html().splitlines(keepends=True)
            result = {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}
            cell["outputs"].append(result)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
