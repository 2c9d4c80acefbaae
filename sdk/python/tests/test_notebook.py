"""Progress in a notebook: a real kernel, without ipywidgets."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .helpers import DEADLINE, ROOT, Coordinator

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
nbconvert = pytest.importorskip("nbconvert")

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


#: A bar of a job that runs, beside that of the job.
CELL_OF_A_RUNNING_JOB = """
from IPython.display import HTML
from divvy.progress import to_html
HTML(to_html({**job.data, "state": "running", "progress": {"fraction": 0.4}}))
"""


def test_the_bar_is_visible_in_a_real_browser_and_as_long_as_its_job_is_done(grid: Coordinator, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.fail("node is not installed: apt-get install nodejs (scripts/test.sh does so)")
    cells = [nbformat.v4.new_code_cell(cell) for cell in (CELL, CELL_OF_A_RUNNING_JOB)]
    notebook: Any = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=DEADLINE).execute(env={**os.environ, "DIVVY_URL": grid.url})
    page = tmp_path / "notebook.html"
    page.write_text(nbconvert.HTMLExporter().from_notebook_node(notebook)[0])
    environment = {"BROWSER_MODULES": str(ROOT / "target" / "browser"), **os.environ}
    command = ["node", str(ROOT / "e2e" / "browser" / "notebook.mjs"), str(page)]
    looked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3 * DEADLINE, check=False)
    assert looked.returncode == 0, looked.stderr
    done, running = json.loads(looked.stdout)
    for bar, share in ((done, 1.0), (running, 0.4)):
        assert bar["isVisible"] and bar["track"]["width"] > 200 and bar["track"]["height"] > 5, bar
        assert bar["filled"]["width"] == pytest.approx(share * bar["track"]["width"], rel=0.02)
        assert bar["filled"]["height"] == bar["track"]["height"] and bar["colors"][0] != bar["colors"][1]
        assert bar["value"] == f"{100 * share:.0f}"
    assert "tasks succeeded, 100 %, 40 of 40 tasks" in done["text"]
    assert done["colors"][1] != running["colors"][1]
