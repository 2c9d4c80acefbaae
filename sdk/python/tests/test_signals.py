"""Signals to a worker, as a shell, a terminal, an operator or systemd sends them: to one, a group or all processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor
from divvy.worker.cli import stopping

from . import functions
from .helpers import (
    COMMAND,
    DEADLINE,
    Coordinator,
    Process,
    Worker,
    eventually,
    executing,
    parent_of,
    processes_of_session,
    read,
)
from .test_up import url_of


@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_worker_ends_after_the_call_that_runs_at_each_signal(
    start: Callable[..., Any], tmp_path: Path, number: int, send: Callable[[int, int], None]
) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, "--drain-timeout", "60", slots=1).ready()
    runs, go = tmp_path / "runs", tmp_path / "go"
    # A call whose process is killed fails at its only attempt.
    with executing(coordinator.url, max_attempts=1) as executor:
        future = executor.submit(functions.touch_and_wait, str(runs), str(go))
        eventually("it runs", lambda: read(runs))
        send(worker.pid, number)
        worker.logged("stopping")
        go.touch()
        assert future.result(DEADLINE) == str(go)
    assert worker.wait() == 0, worker.lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_call_goes_on_where_every_process_of_its_worker_is_told_to_stop(
    start: Callable[..., Any], tmp_path: Path, number: int
) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, "--drain-timeout", "60", slots=1).ready()
    runs, go = tmp_path / "runs", tmp_path / "go"
    with executing(coordinator.url, max_attempts=1) as executor:
        future = executor.submit(functions.touch_and_wait, str(runs), str(go))
        slot = int(eventually("it runs", lambda: read(runs)) or 0)
        processes = processes_of_session(worker.pid)
        assert {worker.pid, slot} <= set(processes)
        # As systemd stops a unit by default.
        for process in processes:
            os.kill(process, number)
        worker.logged("stopping")
        go.touch()
        assert future.result(DEADLINE) == str(go)
    assert worker.wait() == 0, worker.lines


def test_a_sigterm_of_a_supervisor_and_one_of_the_grid_that_it_stops_are_one_stop() -> None:
    stops: list[tuple[float, int]] = []
    now, number = 0.0, signal.SIGTERM
    handle = stopping(lambda: stops.append((now, number)), lambda: now)
    signals = [(0.0, signal.SIGTERM), (1.9, signal.SIGTERM), (1.9, signal.SIGINT), (2.0, signal.SIGTERM)]
    for now, number in signals:  # noqa: B007 (the handler's clock)
        handle(number, None)
    assert stops == [signals[0], signals[2], signals[3]]


def test_what_a_call_has_started_ends_at_sigterm_as_everywhere(executor: GridExecutor) -> None:
    ended = executor.submit(functions.end_what_was_started).result(DEADLINE)
    assert ended == [signal.SIGTERM, signal.SIGTERM]


def test_a_worker_that_nohup_starts_goes_on_at_the_end_of_its_terminal(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    command = [sys.executable, "-m", "divvy.worker", "--coordinator", coordinator.internal_url, "--slots", "1"]
    worker = start(Process, ["nohup", *command], {})
    worker.logged("fetches from")
    os.killpg(worker.pid, signal.SIGHUP)
    with executing(coordinator.url) as executor:
        assert executor.submit(functions.double, 1).result(DEADLINE) == 2
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.lines


def test_ctrl_c_at_a_grid_lets_the_call_of_its_python_worker_end(
    start: Callable[..., Any], scripts: str, tmp_path: Path
) -> None:
    options = ["up", "--port", "0", "--workers", "1", "--python-workers", "1"]
    grid = start(Process, [str(COMMAND), *options], {"PATH": scripts, "DIVVY_LOG": "info"})
    runs, go, done = (str(tmp_path / name) for name in ("runs", "go", "done"))

    def call() -> None:
        functions.touch_and_wait(runs, go)
        Path(done).touch()

    with Client(url_of(grid)) as client:
        executor = GridExecutor(client)
        executor.submit(call)
        slot = int(eventually("it runs", lambda: read(Path(runs))) or 0)
        worker = parent_of(parent_of(slot))
        # A terminal sends it to every process of the group. A second signal to the worker would end the call.
        assert os.getpgid(worker) != os.getpgid(grid.pid)
        os.killpg(grid.pid, signal.SIGINT)
        grid.logged("INFO stopping")
        Path(go).touch()
        # The grid may be gone before its client hears of the outcome.
        executor.shutdown(wait=False, cancel_futures=True)
        assert grid.wait() == 0, grid.lines
    assert Path(done).exists(), grid.lines
