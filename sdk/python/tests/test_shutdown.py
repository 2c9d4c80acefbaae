"""``shutdown``, the context manager and the interpreter's end."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor, errors

from . import functions
from .helpers import DEADLINE, Coordinator, Process, Worker, eventually, executing, jobs_of, read, together
from .programs import run_program

NOWHERE: Any = {"labels": {"gpu": "no worker has this"}}


class Held:
    """Jobs that are held on their way: whether one is, and whether they may arrive."""

    def __init__(self) -> None:
        self.is_sending, self.may_go_on = threading.Event(), threading.Event()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    from divvy import _engine

    held, put = Held(), _engine.Engine._put

    def hold(engine: Any, id: str, body: bytes) -> None:
        held.is_sending.set()
        held.may_go_on.wait(DEADLINE)
        put(engine, id, body)

    monkeypatch.setattr(_engine.Engine, "_put", hold)
    return held


def threads_of_executors() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in ("divvy-sender", "divvy-collector")]


def test_no_call_is_taken_after_a_shutdown(grid: Coordinator) -> None:
    executor = GridExecutor(grid.url)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(functions.double, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(functions.double, [1])
    executor.shutdown()


def test_a_shutdown_waits_for_what_was_submitted(grid: Coordinator) -> None:
    with executing(grid.url) as executor:
        futures = [executor.submit(functions.sleep, 0.01) for _ in range(50)]
    assert all(future.done() for future in futures)
    assert [future.result(0) for future in futures] == [0.01] * 50
    assert threads_of_executors() == []


def test_a_shutdown_without_waiting_lets_calls_go_on(grid: Coordinator, tmp_path: Path) -> None:
    executor = GridExecutor(grid.url)
    future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    executor.shutdown(wait=False)
    assert not future.done()
    (tmp_path / "go").touch()
    assert future.result(DEADLINE) == str(tmp_path / "go")
    eventually("its threads end", lambda: threads_of_executors() == [])


def test_an_executor_that_nobody_holds_brings_its_calls_to_an_end(grid: Coordinator) -> None:
    executor = GridExecutor(grid.url)
    results = executor.map(functions.double, range(50))
    future: Future[float] = executor.submit(functions.sleep, 0.2)
    del executor
    gc.collect()
    assert list(results) == [2 * value for value in range(50)]
    assert future.result(DEADLINE) == 0.2
    eventually("its threads end", lambda: threads_of_executors() == [])


def calls_at_grid(client: Client, executor: GridExecutor) -> int:
    """The calls of an executor that the grid knows."""
    return sum(job.data["tasks"]["total"] for job in jobs_of(client, executor.id))


def nothing_waits(client: Client, executor: GridExecutor) -> bool:
    """Whether the grid will begin none of an executor's calls any more."""
    jobs = [job.data for job in jobs_of(client, executor.id) if not job.is_over]
    return all(job["tasks"]["pending"] == 0 for job in jobs)


def test_cancel_futures_spares_what_runs(grid: Coordinator, client: Client, tmp_path: Path) -> None:
    calls, go = tmp_path / "calls", tmp_path / "go"
    calls.mkdir()
    executor = GridExecutor(grid.url)
    running = [executor.submit(functions.touch_and_wait, str(tmp_path / name), str(go)) for name in ("a", "b")]
    eventually("both run", lambda: all(future.running() for future in running))
    waiting = [executor.submit(functions.count_call, str(calls), 0.0) for _ in range(20)]
    # A call on its way to the grid may begin before the grid hears of its cancel.
    eventually("the grid has all calls", lambda: calls_at_grid(client, executor) == 22)
    stopping = threading.Thread(target=lambda: executor.shutdown(cancel_futures=True))
    stopping.start()
    eventually("they are canceled", lambda: all(future.cancelled() for future in waiting))
    eventually("the grid knows", lambda: nothing_waits(client, executor))
    assert stopping.is_alive()
    go.touch()
    stopping.join(DEADLINE)
    assert [future.result(0) for future in running] == [str(go)] * 2
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(0)
    assert list(calls.iterdir()) == []


def test_cancel_futures_spares_what_runs_of_a_job_and_then_cancels_the_rest(
    grid: Coordinator, client: Client, tmp_path: Path
) -> None:
    # All of these are tasks of one job: the first two run, the others wait for a slot.
    go = tmp_path / "go"
    executor = GridExecutor(grid.url)
    names = [str(tmp_path / str(number)) for number in range(12)]
    with together(executor):
        futures = [executor.submit(functions.touch_and_wait, name, str(go)) for name in names]
    eventually("two run", lambda: sum(future.running() for future in futures) == 2)
    assert len(jobs_of(client, executor.id)) == 1
    executor.shutdown(wait=False, cancel_futures=True)
    running = [future for future in futures if not future.cancelled()]
    assert len(running) == 2
    eventually("the grid knows", lambda: nothing_waits(client, executor))
    go.touch()
    assert [future.result(DEADLINE) for future in running] == [str(go)] * 2
    eventually("its jobs are over", lambda: all(job.is_over for job in jobs_of(client, executor.id)))


def test_a_cancel_reaches_a_coordinator_that_was_away(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    with Client(coordinator.url, retry_for=600.0) as client:
        executor = GridExecutor(client, requires=NOWHERE)
        future = executor.submit(functions.double, 1)
        eventually("the executor knows that the job is there", lambda: not executor._engine._collector.is_idle())
        coordinator.kill()
        executor.shutdown(wait=False, cancel_futures=True)
        assert future.cancelled()
        start(coordinator.start_again)
        eventually("the grid knows", lambda: [job.state for job in jobs_of(client, executor.id)] == ["canceled"])
        eventually("its threads end", lambda: threads_of_executors() == [])


def test_cancel_cancels_on_the_grid(grid: Coordinator, client: Client) -> None:
    with executing(grid.url, requires=NOWHERE) as executor:
        futures = [executor.submit(functions.double, value) for value in range(5)]
        eventually("the job is there", lambda: jobs_of(client, executor.id))
        for future in futures:
            assert future.cancel()
        eventually("the job is canceled", lambda: {job.state for job in jobs_of(client, executor.id)} == {"canceled"})


def test_canceling_a_call_ends_its_process(start: Callable[..., Any], tmp_path: Path) -> None:
    # The future does not know yet that the call runs: its job is canceled, and the worker hears of it.
    coordinator = start(Coordinator)
    start(Worker, coordinator, slots=1).ready()
    with Client(coordinator.url) as client, executing(client) as executor:
        future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
        pid = int(eventually("it runs", lambda: read(tmp_path / "runs")))
        for job in jobs_of(client, executor.id):
            job.cancel()
        eventually("its process is gone", lambda: not Path(f"/proc/{pid}").exists())
        assert type(future.exception(DEADLINE)).__name__ == "JobCanceled"
        assert executor.submit(functions.double, 2).result(DEADLINE) == 4


@pytest.mark.parametrize("kill", ["kill_workers", "terminate_workers"])
def test_to_kill_ends_running_calls_cancels_those_that_wait_and_spares_other_executors(
    start: Callable[..., Any], tmp_path: Path, kill: str
) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, "--import", "tests.functions").ready()
    go = tmp_path / "go"
    with Client(coordinator.url) as client, executing(client) as other:
        executor = GridExecutor(coordinator.url)
        running = executor.submit(functions.touch_and_wait, str(tmp_path / "killed"), str(tmp_path / "never"))
        spared = other.submit(functions.touch_and_wait, str(tmp_path / "spared"), str(go))
        eventually("both run", lambda: running.running() and spared.running())
        pid = int(eventually("its process is told", lambda: read(tmp_path / "killed")))
        waiting = executor.submit(functions.double, 1)
        eventually("the grid has it", lambda: calls_at_grid(client, executor) == 2)
        getattr(executor, kill)()
        assert waiting.cancelled()
        with pytest.raises(BrokenExecutor, match="the calls of this executor were killed"):
            running.result(0)
        with pytest.raises(BrokenExecutor, match="the calls of this executor were killed"):
            executor.submit(functions.double, 1)
        eventually("its process is gone", lambda: not Path(f"/proc/{pid}").exists())
        eventually("its jobs are canceled", lambda: {job.state for job in jobs_of(client, executor.id)} == {"canceled"})
        executor.shutdown()
        go.touch()
        assert spared.result(DEADLINE) == str(go)
        assert other.submit(functions.double, 2).result(DEADLINE) == 4


def test_to_kill_an_executor_that_has_no_calls_or_is_shut_down_only_closes_it(grid: Coordinator) -> None:
    for is_used in (True, False):
        executor = GridExecutor(grid.url)
        if is_used:
            assert executor.submit(functions.double, 1).result(DEADLINE) == 2
            executor.shutdown()
        executor.kill_workers()
        executor.kill_workers()
        executor.shutdown()
        with pytest.raises(BrokenExecutor):
            executor.submit(functions.double, 1)
        eventually("its threads end", lambda: threads_of_executors() == [])


def test_a_client_that_was_passed_stays_open(grid: Coordinator, client: Client) -> None:
    with executing(client) as executor:
        assert executor.submit(functions.double, 1).result(DEADLINE) == 2
    assert client.stats()["tasks_per_second"] >= 0
    with executing(client) as executor:
        assert executor.submit(functions.double, 2).result(DEADLINE) == 4


def test_the_interpreter_ends_after_the_calls_that_nobody_waited_for(grid: Coordinator, tmp_path: Path) -> None:
    program = f"""
from divvy import GridExecutor
from tests import functions
executor = GridExecutor()
future = executor.submit(functions.count_call, {str(tmp_path)!r}, 0.5)
future.add_done_callback(lambda future: print("done", future.result(), flush=True))
"""
    ended = run_program(grid, program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done 1\n", "")


def test_ctrl_c_interrupts_what_waits_and_the_program_ends_with_its_calls(
    grid: Coordinator, start: Callable[..., Any], tmp_path: Path
) -> None:
    runs, go = tmp_path / "runs", tmp_path / "go"
    program = f"""
import time
from divvy import GridExecutor
from tests import functions
executor = GridExecutor({grid.url!r})
future = executor.submit(functions.touch_and_wait, {str(runs)!r}, {str(go)!r})
future.add_done_callback(lambda future: print("done", future.result() == {str(go)!r}, flush=True))
while not future.running():
    time.sleep(0.01)
try:
    print("waits", flush=True)
    future.result()
except KeyboardInterrupt:
    executor.shutdown(wait=False, cancel_futures=True)
    print("interrupted", future.done(), flush=True)
"""
    running = start(Process, [sys.executable, "-c", program], {})
    running.logged("waits")
    running.signal(signal.SIGINT)
    running.logged("interrupted False")
    go.touch()
    assert running.wait() == 0, running.lines
    assert running.lines == ["waits", "interrupted False", "done True"]


def test_no_call_is_taken_when_the_interpreter_ends(grid: Coordinator) -> None:
    program = """
import atexit
from divvy import GridExecutor
from tests import functions
executor = GridExecutor()
executor.submit(functions.double, 1).result()
@atexit.register
def late():
    try:
        executor.submit(functions.double, 2)
    except RuntimeError as error:
        print("refused:", error, flush=True)
"""
    ended = run_program(grid, program)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("refused: cannot schedule new futures after")


def test_functions_of_main_run_on_the_grid(grid: Coordinator) -> None:
    program = """
from divvy import GridExecutor
class Pair:
    def __init__(self, a, b):
        self.a, self.b = a, b
def swap(pair):
    return Pair(pair.b, pair.a)
with GridExecutor() as executor:
    swapped = executor.submit(swap, Pair(1, 2)).result()
    print(type(swapped) is Pair, swapped.a, swapped.b)
"""
    ended = run_program(grid, program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True 2 1\n", "")


def test_nothing_keeps_arguments_and_results_alive(executor: GridExecutor) -> None:
    class Marked:
        """Something that can be referred to weakly."""

    argument = Marked()
    gone = weakref.ref(argument)
    future = executor.submit(functions.capture, argument)
    del argument
    future.result(DEADLINE)
    del future
    eventually("it is gone", lambda: gc.collect() is not None and gone() is None)


def test_a_future_that_is_done_is_kept_alive_by_nothing(executor: GridExecutor) -> None:
    future = executor.submit(functions.double, 1)
    assert future.result(DEADLINE) == 2
    gone = weakref.ref(future)
    del future
    eventually("it is gone", lambda: gc.collect() is not None and gone() is None)


def test_a_job_that_is_sent_while_its_executor_breaks_is_canceled(
    grid: Coordinator, client: Client, held: Held
) -> None:
    executor = GridExecutor(grid.url, requires=NOWHERE)
    future = executor.submit(functions.double, 1)
    assert held.is_sending.wait(DEADLINE)
    executor._engine.break_down(ZeroDivisionError("a defect"))
    assert isinstance(future.exception(DEADLINE), errors.BrokenGridExecutor)
    held.may_go_on.set()
    eventually("the job is canceled", lambda: [job.state for job in jobs_of(client, executor.id)] == ["canceled"])
    executor.shutdown(wait=False)
    eventually("its threads end", lambda: threads_of_executors() == [])


def test_cancel_futures_reaches_calls_that_are_on_their_way(grid: Coordinator, held: Held) -> None:
    executor = GridExecutor(grid.url)
    future = executor.submit(functions.sleep, 60.0)
    assert held.is_sending.wait(DEADLINE)
    executor.shutdown(wait=False, cancel_futures=True)
    assert future.cancelled()
    held.may_go_on.set()
    eventually("its threads end", lambda: threads_of_executors() == [])


def test_a_job_that_is_canceled_on_its_way_waits_for_no_look_of_the_collector(
    grid: Coordinator, client: Client, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    from divvy import _collector

    monkeypatch.setattr(_collector.Collector, "_bring_cancels", lambda *_: None)
    executor = GridExecutor(grid.url, requires=NOWHERE)
    future = executor.submit(functions.double, 1)
    assert held.is_sending.wait(DEADLINE)
    assert future.cancel()
    held.may_go_on.set()
    eventually("the job is canceled", lambda: [job.state for job in jobs_of(client, executor.id)] == ["canceled"])
    executor.shutdown()


def test_a_shutdown_waits_for_a_thread_that_is_about_to_end(grid: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    from divvy import _engine

    has_nothing_to_do, may_end = threading.Event(), threading.Event()
    next_group = _engine.Engine._next_group

    def slow_to_end(engine: Any) -> Any:
        if (group := next_group(engine)) is None:
            has_nothing_to_do.set()
            may_end.wait(DEADLINE)
        return group

    monkeypatch.setattr(_engine.Engine, "_next_group", slow_to_end)
    executor = GridExecutor(grid.url)
    assert executor.submit(functions.double, 1).result(DEADLINE) == 2
    executor.shutdown(wait=False)
    assert has_nothing_to_do.wait(DEADLINE)
    join = threading.Thread.join

    def let_end(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "divvy-sender":
            may_end.set()
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", let_end)
    executor.shutdown()
    assert threads_of_executors() == []
