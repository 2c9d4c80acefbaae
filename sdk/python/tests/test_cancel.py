"""``cancel`` of a future, here and on the grid."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed, wait
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor, errors

from . import functions
from .helpers import DEADLINE, Coordinator, Worker, eventually, executing, is_alive, jobs_of, read, together


def test_a_running_call_cannot_be_canceled_through_its_future(executor: GridExecutor, tmp_path: Path) -> None:
    future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    eventually("the future knows that it runs", future.running)
    assert not future.cancel()
    (tmp_path / "go").touch()
    assert future.result(DEADLINE) == str(tmp_path / "go")
    assert not future.cancel() and not future.cancelled()


def test_a_canceled_future_tells_those_who_wait(grid: Coordinator) -> None:
    with executing(grid.url, requires={"labels": {"gpu": "no worker has this"}}) as executor:
        future = executor.submit(functions.double, 1)
        called: list[Future[Any]] = []
        future.add_done_callback(called.append)
        told = threading.Event()

        def wait_for_it() -> None:
            with pytest.raises(CancelledError):
                future.result(DEADLINE)
            told.set()

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert future.cancel() and future.cancel()
        waiting.join(DEADLINE)
        assert told.is_set()
        assert future.cancelled() and future.done() and called == [future]
        assert wait([future], timeout=0) == ({future}, set())
        assert list(as_completed([future], timeout=0)) == [future]
        with pytest.raises(CancelledError):
            future.exception()


def test_a_canceled_call_never_runs_and_the_others_of_its_job_do(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator)
    directories = [tmp_path / str(number) for number in range(6)]
    for directory in directories:
        directory.mkdir()
    with Client(coordinator.url) as client, executing(client) as executor:
        with together(executor):
            futures = [executor.submit(functions.count_call, str(directory), 0.0) for directory in directories]
        (job,) = eventually("the job is there", lambda: jobs_of(client, executor.id))
        assert futures[1].cancel() and futures[4].cancel()
        eventually("the grid knows", lambda: [task["index"] for task in job.tasks(state="succeeded")] == [1, 4])
        start(Worker, coordinator, slots=1).ready()
        assert [futures[number].result(DEADLINE) for number in (0, 2, 3, 5)] == [1, 1, 1, 1]
    assert [len(list(directory.iterdir())) for directory in directories] == [1, 0, 1, 1, 0, 1]
    assert futures[1].cancelled() and futures[4].cancelled()


def test_a_call_that_is_canceled_as_it_runs_is_killed_when_no_other_of_its_job_is_left(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, slots=2).ready()
    runs, ends = [[str(tmp_path / f"{name}-{what}") for name in ("a", "b")] for what in ("runs", "ends")]
    with Client(coordinator.url) as client, executing(client) as executor:
        with together(executor):
            futures = [executor.submit(functions.touch_and_wait, *files) for files in zip(runs, ends, strict=True)]
            # Its future does not hear that it runs, and lets itself be canceled.
            futures[0].note_running = lambda: None  # type: ignore[attr-defined]
        pids = [int(eventually("it runs", lambda run=run: read(Path(run))) or 0) for run in runs]  # type: ignore[misc]
        assert futures[0].cancel()
        Path(ends[1]).touch()
        assert futures[1].result(DEADLINE) == ends[1]
        eventually("the process of the canceled call is gone", lambda: not is_alive(pids[0]))
        assert executor.submit(functions.double, 4).result(DEADLINE) == 8


def test_cancels_at_any_moment_leave_each_future_canceled_or_with_its_result(executor: GridExecutor) -> None:
    chance = random.Random(7)
    futures = [executor.submit(functions.double, value) for value in range(400)]
    order = chance.sample(futures, len(futures))

    def cancel() -> None:
        for future in order[:300]:
            future.cancel()
            time.sleep(chance.random() / 200)

    threads = [threading.Thread(target=cancel) for _ in range(2)]
    for thread in threads:
        thread.start()
    finished, pending = wait(futures, timeout=DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)
    assert pending == set() and len(finished) == 400
    assert all(future.cancelled() or future.result(0) == 2 * value for value, future in enumerate(futures))
    assert not any(future.cancelled() for future in order[300:])


def test_a_cancel_that_the_grid_refuses_costs_no_other_call_of_the_job(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = start(Coordinator)
    is_refused = threading.Event()

    def refuse(*_: object) -> list[int]:
        is_refused.set()
        raise errors.GridError(500, "a defect")

    monkeypatch.setattr(Client, "skip", refuse)
    with executing(coordinator.url) as executor:
        with together(executor):
            futures = [executor.submit(functions.double, value) for value in range(3)]
        eventually("the executor knows that the job is there", lambda: not executor._engine._collector.is_idle())
        assert futures[1].cancel()
        assert is_refused.wait(DEADLINE)
        start(Worker, coordinator, slots=1).ready()
        assert [futures[number].result(DEADLINE) for number in (0, 2)] == [0, 4]
    assert futures[1].cancelled()
