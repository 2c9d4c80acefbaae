"""Programs that use the grid in an interpreter of their own."""

from __future__ import annotations

import subprocess
import sys

from .helpers import DEADLINE, SDK, Coordinator


def run_program(grid: Coordinator, program: str, *, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Runs a program, which may wait several times, in an interpreter of its own."""
    environment = {"PYTHONPATH": str(SDK), "DIVVY_URL": grid.url, "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=SDK,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=5 * DEADLINE,
        check=False,
    )
