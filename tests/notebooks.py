"""Notebooks as a reader runs them, in a kernel of their own."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.conftest import clean_environment

NOTEBOOK_TIMEOUT = 900  # seconds, for a cell too


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run the cells one after another in a folder, and keep below each what it shows.

    Raises `CellExecutionError` where one fails.
    """
    environment = clean_environment() | {"IPYTHONDIR": str(folder / ".ipython")}
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=NOTEBOOK_TIMEOUT, coalesce_streams=True, resources=place).execute(
        env=environment
    )


def run_cells(folder: Path, *sources: str) -> list[list[NotebookNode]]:
    """What is shown below each cell."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    execute(notebook, folder)
    return [cell.outputs for cell in notebook.cells]
