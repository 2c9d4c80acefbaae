"""``divvy up --python-workers``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divvy import GridExecutor

from . import functions
from .helpers import DEADLINE, ROOT, Process, eventually, is_alive

COMMAND = Path(os.environ.get("DIVVY_BINARY") or ROOT / "target" / "debug" / "divvy")


@pytest.mark.skipif(not COMMAND.exists(), reason="the command is not built: cargo build -p divvy")
def test_up_starts_python_workers_and_stops_them(start: Callable[..., Any]) -> None:
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = ["up", "--port", "0", "--workers", "1", "--python-workers", "2"]
    grid = start(Process, [str(COMMAND), *options], {"PATH": scripts, "DIVVY_LOG": "error"})
    url = eventually("it prints its URL", lambda: next((line for line in grid.lines if line.startswith("http")), None))
    with GridExecutor(url) as executor:
        pids = set(eventually("both run calls", lambda: both(executor)))
    grid.signal(signal.SIGTERM)
    assert grid.wait() == 0, grid.lines
    eventually("all of it is gone", lambda: not any(is_alive(pid) for pid in pids))


def both(executor: GridExecutor) -> set[int] | None:
    """The slots' processes, once there are two."""
    futures = [executor.submit(functions.sleep, 0.05) for _ in range(4)]
    pids = {executor.submit(functions.pid).result(DEADLINE) for _ in range(2)}
    for future in futures:
        future.result(DEADLINE)
    return pids if len(pids) == 2 else None
