"""Progress in a notebook: a real kernel, without ipywidgets."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

from .helpers import DEADLINE, Coordinator

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

CELL = """
from divvy import Client
with Client() as client:
    job = client.call_each("price", [[amount] for amount in range(40)]).wait()
job.state
"""


def test_a_notebook_shows_one_bar_that_is_updated_in_place(grid: Coordinator) -> None:
    assert importlib.util.find_spec("ipywidgets") is None
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    environment = {**os.environ, "DIVVY_URL": grid.url}
    nbclient.NotebookClient(notebook, timeout=DEADLINE).execute(env=environment)
    bar, value = notebook.cells[0].outputs
    assert bar.output_type == "display_data"
    assert 'role="progressbar" aria-valuenow="100"' in bar.data["text/html"]
    assert "tasks succeeded, 100 %, 40 of 40 tasks" in bar.data["text/html"]
    assert value.data["text/plain"] == "'succeeded'"
