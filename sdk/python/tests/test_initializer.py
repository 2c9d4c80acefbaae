"""``initializer`` and ``initargs``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

import pytest

from divvy import GridExecutor, calls
from divvy.worker import child

from . import functions
from .helpers import DEADLINE, Coordinator, Worker, executing, together


def test_the_initializer_runs_once_in_each_process(grid: Coordinator) -> None:
    with executing(grid.url, initializer=functions.initialize, initargs=("set",)) as executor:
        seen = list(executor.map(functions.initialized, range(30)))
        seen.append(executor.submit(functions.initialized).result(DEADLINE))
    assert seen == [["set"]] * 31


def test_executors_do_not_see_what_others_initialized(grid: Coordinator) -> None:
    with (
        executing(grid.url, initializer=functions.initialize, initargs=("one",)) as one,
        executing(grid.url, initializer=functions.initialize, initargs=("two",)) as two,
        executing(grid.url) as none,
    ):
        for executor, expected in ((one, ["one"]), (two, ["two"]), (none, []), (one, ["one"])):
            assert list(executor.map(functions.initialized, range(4))) == [expected] * 4


def test_an_initializer_that_fails_breaks_the_executor(grid: Coordinator) -> None:
    with executing(grid.url, initializer=functions.initialize_wrongly) as executor:
        # All calls are submitted before the first one fails: after that the executor takes no call.
        with together(executor):
            futures = [executor.submit(functions.double, value) for value in range(5)]
        for future in futures:
            with pytest.raises(BrokenExecutor, match="no such device"):
                future.result(DEADLINE)
        with pytest.raises(BrokenExecutor):
            executor.submit(functions.double, 1)
    with executing(grid.url) as other:
        assert other.submit(functions.double, 1).result(DEADLINE) == 2


def test_a_long_message_of_a_failed_initializer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MAX_TRACEBACK_CHARS", 10)
    initializer = calls.to_text(calls.dumps((functions.raise_value_error, ("x" * 1000,))))
    answer, session = child.run({"session": "one", "initializer": initializer}, None)
    assert session is None and "ValueError: xxxxxxxxxx" in answer and len(answer) < 1000


def test_an_initializer_must_be_callable(grid: Coordinator) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        GridExecutor(grid.url, initializer=1)  # type: ignore[arg-type]


def test_a_new_process_is_initialized_again(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, slots=1).ready()
    with executing(coordinator.url, initializer=functions.initialize, initargs=("set",), max_attempts=1) as executor:
        first = executor.submit(functions.pid).result(DEADLINE)
        assert executor.submit(functions.die).exception(DEADLINE) is not None
        assert executor.submit(functions.initialized).result(DEADLINE) == ["set"]
        assert executor.submit(functions.pid).result(DEADLINE) != first
