"""``divvy up --python-workers``."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor, errors

from . import functions
from .helpers import COMMAND, DEADLINE, Process, eventually, is_alive


def url_of(grid: Process) -> str:
    """The URL that `divvy up` prints."""
    found = eventually(
        "it prints its URL", lambda: next((line for line in grid.lines if line.startswith("http")), None)
    )
    return str(found)


def test_up_starts_python_workers_and_stops_them(start: Callable[..., Any], scripts: str) -> None:
    options = ["up", "--port", "0", "--workers", "1", "--python-workers", "2"]
    grid = start(Process, [str(COMMAND), *options], {"PATH": scripts, "DIVVY_LOG": "error"})
    with Client(url_of(grid)) as client, GridExecutor(client) as executor:
        pids = set(eventually("both run calls", lambda: both(executor)))
        # OEIS A046731.
        job = client.submit("sum-of-primes", {"a": 1, "b": 10**8}, priority=7)
        assert int(job.wait(DEADLINE).result["sum"]) == 279209790387276
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


def test_a_job_of_a_program_fails_with_the_reason_of_its_first_task(
    start: Callable[..., Any], scripts: str, tmp_path: Path
) -> None:
    tokens, programs = tmp_path / "tokens.toml", tmp_path / "programs.toml"
    digest = hashlib.sha256(b"mine").hexdigest()
    tokens.write_text(f'[[token]]\nname = "me"\nsha256 = "{digest}"\nrights = ["admin"]\n')
    programs.write_text('[program.refuse]\ncommand = ["/bin/sh", "-c", "echo no such curve >&2; exit 3"]\n')
    variables = {"PATH": scripts, "DIVVY_LOG": "error", "DIVVY_API_TOKENS_FILE": str(tokens)}
    options = ["up", "--port", "0", "--internal-port", "0", "--workers", "1"]
    grid = start(Process, [str(COMMAND), *options], {**variables, "DIVVY_PROGRAMS": str(programs)})
    with Client(url_of(grid), token="mine") as client:
        job = client.submit("program", {"program": "refuse", "args": [["a"]]}, max_attempts=1).wait(DEADLINE)
        assert job.state == "failed", job.explain()
        with pytest.raises(errors.JobFailed, match=r"task 0: .*no such curve"):
            job.result  # noqa: B018
