"""The notebook runs from top to bottom, and what it says of the prediction holds.

``python -m tests.test_notebook`` runs it and keeps what its cells print.
"""

import ast
import contextlib
import io
import json
from pathlib import Path

import plotly.graph_objects as go
import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "from_recipe_to_prediction.ipynb"


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


@pytest.mark.xdist_group("notebook")
def test_the_notebook_tells_the_story_in_ten_cells():
    _, found = cells()
    assert len(found) == 10
    names, shown = {}, []
    for cell in found:
        shown.append(run("".join(cell["source"]), names))
        assert shown[-1][0] or shown[-1][1] is not None, "every cell shows something"
    assert [type(value) for _, value in shown[5:7]] == [go.Figure, go.Figure], "figures are plain plotly"
    prediction, measured = names["prediction"], names["measured"]
    assert prediction.interval_new_run[0] < measured["loss"] < prediction.interval_new_run[1]
    assert prediction.interval_n[0] < measured["N"] < prediction.interval_n[1]
    assert len(names["runs"]) == 24
    assert 0 < names["proposed"].table.interval.iloc[-1] < 1


def main():
    """Run it and keep the outputs that are text."""
    notebook, found = cells()
    names = {}
    for count, cell in enumerate(found, 1):
        printed, value = run("".join(cell["source"]), names)
        cell["execution_count"], cell["outputs"] = count, []
        if printed:
            cell["outputs"].append(
                {"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}
            )
        if value is not None and not isinstance(value, go.Figure):
            data = {"text/plain": repr(value).splitlines(keepends=True)}
            if hasattr(value, "to_html"):
                data["text/html"] = value.to_html().splitlines(keepends=True)
            result = {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}
            cell["outputs"].append(result)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
