"""The notebooks of docs/notebooks/ run, and keep light outputs of their last run.

`python tests/test_notebooks.py` runs them and writes the outputs, after a change.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
MOST = 48 << 10
"""Bytes of a notebook with its outputs."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def executed(path: Path, folder: Path) -> Any:
    """Run a notebook in a folder, and return it with its outputs; raises if a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    # Without the times of cells, which would change with each run.
    client = NotebookClient(notebook, timeout=1800, resources=resources, record_timing=False)
    return client.execute()


@pytest.mark.slow
@each_notebook
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook_runs(path, tmp_path):
    for package in ("nbclient", "ipykernel", "pandas"):
        pytest.importorskip(package, reason="needs the [notebooks] extra")
    before = {cell["id"] for cell in json.loads(path.read_text("utf-8"))["cells"]}
    done = executed(path, tmp_path)
    assert {cell["id"] for cell in done.cells} == before
    assert not list(tmp_path.iterdir()), "a notebook writes into a temporary folder of its own"


@each_notebook
def test_the_kept_outputs_are_light_whole_and_name_no_machine(path):
    text = path.read_text("utf-8")
    assert len(text.encode()) < MOST
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    assert "image/" not in text
    assert not re.search(r"(?<![\w.])/(?:tmp|home|root|Users|work)/", text)


@each_notebook
def test_no_page_hides_a_notebook(path):
    pages = "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    assert f"](notebooks/{path.name})" in pages
    for target in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


if __name__ == "__main__":
    import tempfile

    import nbformat

    for notebook in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as empty:
            nbformat.write(executed(notebook, Path(empty)), notebook)
