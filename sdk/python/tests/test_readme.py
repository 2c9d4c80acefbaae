"""The examples of the README run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from .helpers import DEADLINE, SDK, Coordinator

EXAMPLES = re.findall(r"```python\n(.*?)```", (SDK / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(grid: Coordinator, number: int) -> None:
    environment = {"DIVVY_URL": grid.url, "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[number]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) >= 5
