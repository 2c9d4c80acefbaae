"""``submit`` and its futures, as the standard library documents them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    Future,
    as_completed,
    wait,
)
from pathlib import Path
from typing import Any

import pytest

import divvy
from divvy import GridExecutor, calls, errors
from divvy.worker import child

from . import functions
from .helpers import DEADLINE, TIMED_OUT, Coordinator, Worker, eventually, executing, together


def test_a_call_returns_its_value(executor: GridExecutor) -> None:
    assert executor.submit(pow, 2, 8).result(DEADLINE) == 256


def test_keywords_reach_the_function_whatever_their_names(executor: GridExecutor) -> None:
    assert executor.submit(functions.capture, 1, self=2, fn=3).result(DEADLINE) == ((1,), {"self": 2, "fn": 3})
    with pytest.raises(TypeError):
        executor.submit(fn=functions.capture, arg=1)  # type: ignore[call-arg]


def test_futures_are_the_standard_librarys(executor: GridExecutor) -> None:
    future = executor.submit(functions.double, 2)
    assert isinstance(future, Future)
    assert future.result(DEADLINE) == 4
    assert future.done() and not future.running() and not future.cancelled()
    assert future.exception() is None


def test_lambdas_and_closures_travel_by_value(executor: GridExecutor) -> None:
    offset = 40
    assert executor.submit(lambda value: value + offset, 2).result(DEADLINE) == 42


def test_each_call_gets_the_state_of_its_submission(executor: GridExecutor) -> None:
    values = [1]
    first = executor.submit(sum, values)
    values.append(10)
    assert (first.result(DEADLINE), executor.submit(sum, values).result(DEADLINE)) == (1, 11)


def test_an_exception_arrives_with_the_traceback_of_the_worker(executor: GridExecutor) -> None:
    future = executor.submit(functions.raise_value_error, "wrong")
    with pytest.raises(ValueError, match="wrong") as raised:
        future.result(DEADLINE)
    cause = raised.value.__cause__
    assert isinstance(cause, errors.RemoteTraceback)
    assert "raise_value_error" in str(cause) and "raise ValueError(text)" in str(cause)


def test_base_exceptions_arrive_and_the_slot_goes_on(executor: GridExecutor) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for call, expected in ((interrupt, KeyboardInterrupt), (exit, SystemExit)):
        assert isinstance(executor.submit(call).exception(DEADLINE), expected)
    assert executor.submit(functions.double, 1).result(DEADLINE) == 2


def test_an_exception_that_is_false_is_one(executor: GridExecutor) -> None:
    class FalsyError(Exception):
        def __bool__(self) -> bool:
            return False

        def __len__(self) -> int:
            return 0

    future = executor.submit(_raise, FalsyError)
    # `result` of older standard libraries takes it for no exception.
    assert type(future.exception(DEADLINE)).__name__ == "FalsyError"


def _raise(kind: type[BaseException]) -> None:
    raise kind


@pytest.mark.parametrize("kind", [functions.ErrorAtPickle])
def test_what_cannot_be_pickled_fails_in_submit(executor: GridExecutor, kind: type[Any]) -> None:
    with pytest.raises(errors.NotPicklable, match="not to be pickled"):
        executor.submit(functions.capture, kind())
    with pytest.raises(errors.NotPicklable, match="lock"):
        executor.submit(functions.capture, threading.Lock())
    assert executor.submit(functions.double, 1).result(DEADLINE) == 2


def test_an_exit_while_pickling_is_the_callers(executor: GridExecutor) -> None:
    with pytest.raises(SystemExit):
        executor.submit(functions.capture, functions.ExitAtPickle())
    assert executor.submit(functions.double, 1).result(DEADLINE) == 2


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (functions.ErrorAtUnpickle, errors.NotPicklable),
        (functions.ExitAtUnpickle, errors.NotPicklable),
        (functions.CrashAtUnpickle, errors.TaskCrashed),
    ],
)
def test_an_argument_that_breaks_at_the_worker_costs_its_call_only(
    grid: Coordinator, argument: type[Any], expected: type[Exception]
) -> None:
    with executing(grid.url, max_attempts=1) as executor:
        bad, good = executor.submit(functions.capture, argument()), executor.submit(functions.double, 4)
        assert isinstance(bad.exception(DEADLINE), expected)
        assert good.result(DEADLINE) == 8


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (functions.ErrorAtPickle, errors.NotPicklable),
        (functions.ExitAtPickle, errors.NotPicklable),
        (functions.CrashAtPickle, errors.TaskCrashed),
        (functions.ErrorAtUnpickle, errors.NotPicklable),
        (functions.ExitAtUnpickle, errors.NotPicklable),
    ],
)
def test_a_result_that_breaks_costs_its_call_only(
    grid: Coordinator, result: type[Any], expected: type[Exception]
) -> None:
    with executing(grid.url, max_attempts=1) as executor:
        bad, good = executor.submit(functions.make, result), executor.submit(functions.double, 4)
        assert isinstance(bad.exception(DEADLINE), expected)
        assert good.result(DEADLINE) == 8


def test_an_exception_that_cannot_be_pickled_keeps_its_name_and_traceback(executor: GridExecutor) -> None:
    for call, name in ((functions.raise_unpicklable, "UnpicklableError"), (functions.raise_fussy, "FussyError")):
        error = executor.submit(call).exception(DEADLINE)
        assert isinstance(error, errors.RemoteError)
        assert error.type_name == name
        assert name in str(error.__cause__)


def test_an_exception_that_holds_too_much_to_travel_keeps_its_name_and_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child, "MAX_EXCEPTION_BYTES", 1000)
    common = calls.common_fields(attempts=1, timeout=None, session=None, initializer=None)
    for size, name in ((10, None), (1000, "ValueError")):
        payload = json.loads(calls.single_call(common, functions.raise_holding, (size,), {}))
        answer, _ = child.run(payload, None)
        future = Future[Any]()
        calls.settle(future, json.loads(answer.removeprefix(child.OUTCOME)))
        error = future.exception(0)
        assert isinstance(error, errors.RemoteError if name else ValueError)
        assert getattr(error, "type_name", None) == name
        assert "in raise_holding" in str(error.__cause__)


def test_an_exception_whose_attributes_cannot_be_set_arrives_with_its_traceback(executor: GridExecutor) -> None:
    error = executor.submit(functions.raise_frozen).exception(DEADLINE)
    assert type(error) is functions.FrozenError
    assert "in raise_frozen" in str(error.__cause__)


def test_an_exception_without_a_message_of_its_own_arrives(executor: GridExecutor) -> None:
    assert type(executor.submit(functions.raise_wordless).exception(DEADLINE)) is functions.WordlessError
    for call in (functions.capture, functions.make):
        argument: Any = functions.WordlessAtUnpickle if call is functions.make else functions.WordlessAtUnpickle()
        error = executor.submit(call, argument).exception(DEADLINE)
        assert isinstance(error, errors.NotPicklable) and "WordlessError" in str(error)
    assert executor.submit(functions.double, 1).result(DEADLINE) == 2


def test_where_no_thread_can_start_submit_says_so_and_works_later(
    grid: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = threading.Thread.start, ["divvy-sender", "divvy-collector"]

    def fail_once(thread: threading.Thread) -> None:
        if thread.name in refused:
            refused.remove(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_once)
    with executing(grid.url) as executor:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                executor.submit(functions.double, 1)
        assert executor.submit(functions.double, 2).result(DEADLINE) == 4
        assert refused == []


def test_an_event_loop_runs_calls_in_the_executor(executor: GridExecutor) -> None:
    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, functions.double, value) for value in range(5)))

    assert asyncio.run(asyncio.wait_for(run(), DEADLINE)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e10, float("inf"), float("nan")])
def test_a_limit_of_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="task_timeout must be seconds above 0 and up to 1000000000"):
        GridExecutor("http://localhost", task_timeout=seconds)


def test_a_call_that_is_too_long_fails_in_submit(grid: Coordinator) -> None:
    with executing(grid.url, max_call_bytes=10_000) as executor:
        with pytest.raises(errors.PayloadTooLarge, match="max_call_bytes is 10000"):
            executor.submit(len, b"x" * 10_000)
        assert executor.submit(len, b"x" * 1_000).result(DEADLINE) == 1_000


def test_a_call_that_is_too_long_for_the_grid_fails_alone(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator, DIVVY_MAX_JOB_BYTES="20000")
    start(Worker, coordinator, slots=1).ready()
    with executing(coordinator.url) as executor:
        with together(executor):
            short, long = (executor.submit(len, b"x" * length) for length in (1, 30_000))
        assert isinstance(long.exception(DEADLINE), errors.PayloadTooLarge)
        assert short.result(DEADLINE) == 1


def test_large_arguments_and_results_travel(executor: GridExecutor) -> None:
    data = bytes(range(256)) * 20_000
    assert executor.submit(functions.capture, data).result(DEADLINE) == ((data,), {})


def test_wait_sees_the_first_that_completes_and_then_all(executor: GridExecutor, tmp_path: Path) -> None:
    fast: Future[Any] = executor.submit(functions.double, 1)
    slow: Future[Any] = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    finished, pending = wait([fast, slow], timeout=DEADLINE, return_when=FIRST_COMPLETED)
    assert (finished, pending) == ({fast}, {slow})
    assert wait([slow], timeout=0.05) == (set(), {slow})
    (tmp_path / "go").touch()
    finished, pending = wait([fast, slow], timeout=DEADLINE, return_when=ALL_COMPLETED)
    assert (finished, pending) == ({fast, slow}, set())


def test_wait_sees_the_first_exception(executor: GridExecutor, tmp_path: Path) -> None:
    slow: Future[Any] = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    bad: Future[Any] = executor.submit(functions.raise_value_error, "wrong")
    finished, pending = wait([slow, bad], timeout=DEADLINE, return_when=FIRST_EXCEPTION)
    assert (finished, pending) == ({bad}, {slow})
    (tmp_path / "go").touch()
    assert slow.result(DEADLINE)


@pytest.mark.parametrize("complete", [as_completed, divvy.as_completed])
def test_as_completed_yields_each_future_once_and_the_fast_first(
    executor: GridExecutor, tmp_path: Path, complete: Callable[..., Iterator[Future[Any]]]
) -> None:
    slow: Future[Any] = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    fast: Future[Any] = executor.submit(functions.double, 1)
    completed = complete([slow, fast, fast], timeout=DEADLINE)
    assert next(completed) is fast
    (tmp_path / "go").touch()
    assert list(completed) == [slow]


def test_as_completed_without_time_raises_for_what_is_not_done(executor: GridExecutor, tmp_path: Path) -> None:
    slow = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    with pytest.raises(TIMED_OUT):
        list(as_completed([slow], timeout=0))
    # Code that expects the standard library's own class before Python 3.11 gets it.
    with pytest.raises(concurrent.futures.TimeoutError) as raised:
        list(divvy.as_completed([slow], timeout=0))
    assert isinstance(raised.value, TimeoutError)
    (tmp_path / "go").touch()
    assert slow.result(DEADLINE)


def test_as_completed_leaves_no_callback_at_a_future_that_is_not_done() -> None:
    future: Any = Future()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            list(divvy.as_completed([future], timeout=0))
    assert future._done_callbacks == []


def test_as_completed_keeps_no_future_alive_that_it_has_given_away() -> None:
    futures = [Future[None]() for _ in range(3)]
    for number in range(3):
        futures[number].set_result(None)
    seen = 0
    for done in divvy.as_completed(futures, timeout=DEADLINE):
        futures.remove(done)
        gone = weakref.ref(done)
        del done
        gc.collect()
        assert gone() is None
        seen += 1
    assert seen == 3


def test_callbacks_run_once_with_the_future_also_after_it_is_done(executor: GridExecutor) -> None:
    seen: list[Future[Any]] = []
    future = executor.submit(functions.double, 3)
    future.add_done_callback(seen.append)
    assert future.result(DEADLINE) == 6
    eventually("the callback ran", lambda: seen == [future])
    future.add_done_callback(seen.append)
    assert seen == [future, future]


def test_a_callback_that_raises_keeps_no_other_from_its_call(executor: GridExecutor, tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("in a callback")

    called: list[Future[Any]] = []
    future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    future.add_done_callback(fail)
    future.add_done_callback(called.append)
    with pytest.raises(TIMED_OUT):
        future.exception(0.0)
    (tmp_path / "go").touch()
    assert future.exception(DEADLINE) is None
    eventually("the other one is called", lambda: called == [future])
    assert executor.submit(functions.double, 4).result(DEADLINE) == 8


def test_result_times_out_and_the_call_goes_on(executor: GridExecutor, tmp_path: Path) -> None:
    future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    with pytest.raises(TIMED_OUT):
        future.result(0.05)
    with pytest.raises(TIMED_OUT):
        future.exception(0.05)
    (tmp_path / "go").touch()
    assert future.result(DEADLINE) == str(tmp_path / "go")


def test_many_threads_may_submit_at_once(executor: GridExecutor) -> None:
    results: list[list[int]] = []

    def submit(first: int) -> None:
        futures = [executor.submit(functions.double, value) for value in range(first, first + 50)]
        results.append([future.result(DEADLINE) for future in futures])

    threads = [threading.Thread(target=submit, args=(50 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(value for each in results for value in each) == [2 * value for value in range(200)]


def test_a_call_that_waits_for_another_future_does_not_hold_it_up(executor: GridExecutor, tmp_path: Path) -> None:
    # The second call ends only after the first one's result was seen, whatever they share on their way.
    first = executor.submit(functions.double, 1)
    second = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    assert first.result(DEADLINE) == 2
    (tmp_path / "go").touch()
    assert second.result(DEADLINE)


def test_slots_run_calls_at_the_same_time(executor: GridExecutor, tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a", "b")]
    futures = [executor.submit(functions.touch_and_wait, names[0], names[1])]
    futures.append(executor.submit(functions.touch_and_wait, names[1], names[0]))
    began = time.monotonic()
    assert [future.result(DEADLINE) for future in futures] == [names[1], names[0]]
    assert time.monotonic() - began < DEADLINE


def test_a_result_that_is_too_long_to_report_is_named_and_the_worker_goes_on(executor: GridExecutor) -> None:
    error = executor.submit(functions.make_bytes, 50 << 20).exception(DEADLINE)
    assert isinstance(error, errors.ResultTooLarge)
    assert executor.submit(functions.make_bytes, 3).result(DEADLINE) == bytes(3)


def test_long_results_of_a_map_travel_although_one_report_cannot_take_them(executor: GridExecutor) -> None:
    # Short ones first, so that the worker claims many at once.
    assert list(executor.map(functions.double, range(400)))[-1] == 798
    sizes = [12 << 20] * 4
    assert [len(data) for data in executor.map(functions.make_bytes, sizes)] == sizes
