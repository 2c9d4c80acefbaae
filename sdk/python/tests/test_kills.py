"""Real kills: of slots, of Python workers, of the coordinator."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor, errors

from . import functions
from .helpers import DEADLINE, SDK, Coordinator, Worker, eventually, executing, is_alive, jobs_of, read, together

#: Milliseconds after which the leases of a killed worker expire.
SHORT_LEASES = {"DIVVY_LEASE_TIMEOUT_MS": "2000"}


def test_a_process_that_dies_costs_its_call_an_attempt(executor: GridExecutor, tmp_path: Path) -> None:
    others = [executor.submit(functions.double, value) for value in range(20)]
    future = executor.submit(functions.die_once, str(tmp_path / "marker"))
    assert future.result(DEADLINE) != int((tmp_path / "marker").read_text())
    assert [other.result(DEADLINE) for other in others] == [2 * value for value in range(20)]


def test_a_process_that_dies_in_a_map_costs_only_its_item(executor: GridExecutor, tmp_path: Path) -> None:
    markers = [str(tmp_path / str(number)) for number in range(8)]
    for marker in markers[:3] + markers[4:]:
        Path(marker).touch()
    assert len(list(executor.map(functions.die_once, markers))) == 8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (functions.die, "SIGKILL, such as when memory runs out, 2 times"),
        (lambda: functions.die(signal.SIGSEGV), "SIGSEGV, 2 times"),
        (lambda: os._exit(3), "exited with status 3, 2 times"),
    ],
)
def test_a_call_that_always_ends_its_process_crashes_alone(
    grid: Coordinator, call: Callable[[], object], words: str
) -> None:
    with executing(grid.url, max_attempts=2) as executor:
        others = list(executor.map(functions.double, range(10)))
        future = executor.submit(call)
        assert isinstance(future.exception(DEADLINE), errors.TaskCrashed)
        assert words in str(future.exception())
        assert others == list(executor.map(functions.double, range(10)))


def test_a_call_that_ends_its_process_at_its_only_attempt_crashes(grid: Coordinator) -> None:
    with executing(grid.url, max_attempts=1) as executor:
        error = executor.submit(functions.die).exception(DEADLINE)
        assert str(error) == "the process that ran the call was ended by SIGKILL, such as when memory runs out"


@pytest.mark.parametrize("size", [0, 8 << 20])
def test_a_shutdown_waits_for_a_call_that_ends_its_process_however_long_its_argument(
    grid: Coordinator, size: int
) -> None:
    executor = GridExecutor(grid.url, max_attempts=1)
    future = executor.submit(lambda _: functions.die(), bytes(size))
    executor.shutdown()
    assert isinstance(future.exception(0), errors.TaskCrashed)


def test_a_call_past_its_limit_is_killed_and_the_worker_goes_on(grid: Coordinator, tmp_path: Path) -> None:
    # Only the call that hangs has a limit, which is long enough for a busy machine to begin it.
    with executing(grid.url, task_timeout=5.0, max_attempts=2) as executor, executing(grid.url) as other:
        hanging = executor.submit(functions.count_call, str(tmp_path), 600.0)
        quick = other.submit(functions.double, 4)
        error = hanging.exception(DEADLINE)
        assert isinstance(error, errors.TaskTimedOut) and isinstance(error, TimeoutError)
        assert "longer than 5.0 s, 2 times" in str(error)
        assert quick.result(DEADLINE) == 8
        assert list(other.map(functions.double, range(4))) == [0, 2, 4, 6]
    calls = list(tmp_path.iterdir())
    assert len(calls) == 2
    pids = [int(call.name.rpartition("-")[2]) for call in calls]
    eventually("they are gone", lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.parametrize(
    ("call", "limit", "expected"),
    [(functions.start_and_wait, 5.0, errors.TaskTimedOut), (functions.start_and_die, None, errors.TaskCrashed)],
)
def test_what_a_killed_call_has_started_is_killed_too(
    grid: Coordinator,
    tmp_path: Path,
    call: Callable[[str], object],
    limit: float | None,
    expected: type[Exception],
) -> None:
    marker = tmp_path / "started"
    with executing(grid.url, task_timeout=limit, max_attempts=1) as executor:
        assert isinstance(executor.submit(call, str(marker)).exception(DEADLINE), expected)
        eventually("it is gone", lambda: not is_alive(int(read(marker) or 0)))


def test_a_call_that_takes_more_memory_than_its_slot_may_gets_an_error(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, "--memory-per-slot", "256MiB", slots=1).ready()
    with executing(coordinator.url) as executor:
        assert isinstance(executor.submit(functions.allocate, 1 << 30).exception(DEADLINE), MemoryError)
        # Also where an argument or the result takes it.
        large: Any = functions.LargeAtUnpickle()
        assert isinstance(executor.submit(len, large).exception(DEADLINE), MemoryError)
        assert isinstance(executor.submit(functions.large_at_pickle).exception(DEADLINE), MemoryError)
        with pytest.raises(MemoryError):
            list(executor.map(len, [large]))
        assert executor.submit(functions.allocate, 1 << 20).result(DEADLINE) == 1 << 20


def test_another_worker_runs_what_a_killed_one_held(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator, **SHORT_LEASES)
    first = start(Worker, coordinator, slots=1).ready()
    with executing(coordinator.url) as executor:
        future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
        slot = int(eventually("it runs", lambda: read(tmp_path / "runs")) or 0)
        first.kill()
        eventually("its slots die with it", lambda: not is_alive(slot))
        (tmp_path / "runs").unlink()
        start(Worker, coordinator, slots=1).ready()
        eventually("it runs again", lambda: read(tmp_path / "runs"))
        (tmp_path / "go").touch()
        assert future.result(DEADLINE) == str(tmp_path / "go")


def test_slots_die_with_their_worker_however_deep_they_are_in_a_call(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, slots=1).ready()
    with Client(coordinator.url) as client, executing(client) as executor:
        # Counting holds the interpreter's lock in C for long.
        future = executor.submit(
            lambda path: (Path(path).write_text(str(os.getpid())), sum(range(10**12))), str(tmp_path / "pid")
        )
        slot = int(eventually("it runs", lambda: read(tmp_path / "pid")) or 0)
        worker.kill()
        eventually("its slot is gone", lambda: not is_alive(slot))
        for job in jobs_of(client, executor.id):
            job.cancel()
        assert future.exception(DEADLINE) is not None


def test_a_worker_goes_on_where_the_process_is_killed_that_its_slots_are_forked_from(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, slots=2).ready()
    with executing(coordinator.url) as executor:
        marker = tmp_path / "marker"
        assert executor.submit(functions.kill_parent_once, str(marker)).result(DEADLINE) != int(read(marker) or 0)
        assert list(executor.map(functions.double, range(20))) == [2 * value for value in range(20)]
    assert worker.stop() == 0, worker.lines


def test_what_calls_have_started_dies_with_a_killed_worker(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, slots=2).ready()
    markers = [tmp_path / "first", tmp_path / "second"]
    with Client(coordinator.url) as client, executing(client) as executor:
        for marker in markers:
            executor.submit(functions.start_and_wait, str(marker))
        started = [int(eventually("it is started", partial(read, marker))) for marker in markers]
        # A signal to the whole group must not end what ends the others.
        os.killpg(worker.pid, signal.SIGKILL)
        worker.kill()
        eventually("they are gone", lambda: not any(is_alive(pid) for pid in started))
        for job in jobs_of(client, executor.id):
            job.cancel()


def test_a_process_that_a_call_leaves_behind_does_not_stay_as_a_zombie(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, slots=1).ready()
    with executing(coordinator.url) as executor:
        marker = tmp_path / "orphan"
        zygote = executor.submit(functions.leave_an_orphan, str(marker)).result(DEADLINE)
        orphan, parent = eventually("it has another parent", lambda: read(marker)).split()
        # Not the container's first process, which is the worker itself.
        assert int(parent) == zygote
        eventually("it is waited for", lambda: not Path(f"/proc/{orphan}").exists())
        assert executor.submit(functions.double, 1).result(DEADLINE) == 2
    assert worker.stop() == 0, worker.lines
    assert not any("forkserver" in line for line in worker.lines), worker.lines


#: At its end the interpreter waits for the tracker of resources, as Python 3.12.10 and later do.
WAITS_FOR_THE_TRACKER = """
from multiprocessing.resource_tracker import ResourceTracker

ResourceTracker.__del__ = lambda tracker: None if tracker._pid is None else tracker._stop()
"""


def test_a_process_that_has_left_its_group_does_not_keep_the_worker_from_its_end(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "waits_for_the_tracker.py").write_text(WAITS_FOR_THE_TRACKER)
    path = os.pathsep.join([str(SDK), str(tmp_path)])
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, "--import", "waits_for_the_tracker", slots=1, PYTHONPATH=path).ready()
    with executing(coordinator.url) as executor:
        left = executor.submit(functions.leave_the_group).result(DEADLINE)
    try:
        assert worker.stop() == 0, worker.lines
        assert is_alive(left)
    finally:
        os.kill(left, signal.SIGKILL)


def test_a_module_whose_lock_the_resource_tracker_knows_leaves_no_error_at_the_workers_end(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    # The default lock of Python 3.14 is of this kind.
    module = 'import multiprocessing\n\nlock = multiprocessing.get_context("forkserver").Lock()\n'
    (tmp_path / "has_a_lock.py").write_text(module)
    path = os.pathsep.join([str(SDK), str(tmp_path)])
    worker = start(Worker, start(Coordinator), "--import", "has_a_lock", slots=1, PYTHONPATH=path).ready()
    assert worker.stop() == 0, worker.lines
    assert not any("Traceback" in line for line in worker.lines), worker.lines


def test_a_worker_that_is_stopped_finishes_what_runs(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, "--drain-timeout", "600", slots=1).ready()
    with executing(coordinator.url) as executor:
        future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
        eventually("it runs", lambda: read(tmp_path / "runs"))
        worker.signal(signal.SIGTERM)
        worker.logged("stopping")
        (tmp_path / "go").touch()
        assert future.result(DEADLINE) == str(tmp_path / "go")
    assert worker.wait() == 0


def test_a_worker_that_is_stopped_hands_back_what_takes_too_long(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, "--drain-timeout", "0.2", slots=1).ready()
    with executing(coordinator.url) as executor:
        future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
        slot = int(eventually("it runs", lambda: read(tmp_path / "runs")) or 0)
        assert worker.stop() == 0
        eventually("its slot is gone", lambda: not is_alive(slot))
        (tmp_path / "runs").unlink()
        # No lease has to expire first.
        start(Worker, coordinator, slots=1).ready()
        eventually("it runs again", lambda: read(tmp_path / "runs"))
        (tmp_path / "go").touch()
        assert future.result(DEADLINE) == str(tmp_path / "go")


def test_ctrl_c_at_a_worker_drains_and_the_second_one_gives_up(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, "--drain-timeout", "600", slots=1).ready()
    with executing(coordinator.url) as executor:
        future = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
        slot = int(eventually("it runs", lambda: read(tmp_path / "runs")) or 0)
        # A terminal signals the whole group.
        os.killpg(worker.pid, signal.SIGINT)
        worker.logged("stopping")
        assert is_alive(slot) and worker.process.poll() is None
        os.killpg(worker.pid, signal.SIGINT)
        assert worker.wait() == 0, worker.lines
        eventually("its slot is gone", lambda: not is_alive(slot))
        (tmp_path / "go").touch()
        start(Worker, coordinator, slots=1).ready()
        assert future.result(DEADLINE) == str(tmp_path / "go")
    assert not any("Traceback" in line for line in worker.lines), worker.lines


def test_an_idle_worker_stops_at_once(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, slots=1).ready()
    with Client(coordinator.url) as client:
        eventually("it waits for tasks", lambda: client.stats()["workers"]["pulling"] >= 2)
    assert worker.stop() == 0


def test_calls_and_jobs_survive_a_killed_coordinator(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, slots=2).ready()
    with Client(coordinator.url) as client, executing(client) as executor:
        running = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
        eventually("it runs", lambda: read(tmp_path / "runs"))
        waiting = [executor.submit(functions.double, value) for value in range(300)]
        eventually(
            "the jobs are there", lambda: sum(job.data["tasks"]["total"] for job in jobs_of(client, executor.id)) == 301
        )
        coordinator.kill()
        late = executor.submit(functions.double, 1000)
        (tmp_path / "go").touch()
        start(coordinator.start_again)
        assert late.result(DEADLINE) == 2000
        assert [future.result(DEADLINE) for future in waiting] == [2 * value for value in range(300)]
        # The worker's old claim does not count any more: the grid gives the call out again.
        assert running.result(DEADLINE) == str(tmp_path / "go")


def test_no_future_hangs_when_the_grid_is_gone_for_good(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    with Client(coordinator.url, retry_for=1.0) as client, executing(client) as executor:
        sent = executor.submit(functions.double, 1)
        eventually("the job is there", lambda: jobs_of(client, executor.id))
        coordinator.kill()
        unsent = executor.submit(functions.double, 2)
        assert isinstance(sent.exception(DEADLINE), errors.GridUnreachable)
        assert isinstance(unsent.exception(DEADLINE), errors.GridUnreachable)


def test_no_future_hangs_when_the_grid_has_lost_its_data(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    with Client(coordinator.url) as client, executing(client) as executor:
        future = executor.submit(functions.double, 1)
        # A submission whose answer did not arrive would be sent again, to the new grid.
        eventually("the executor knows that the job is there", lambda: not executor._engine._collector.is_idle())
        coordinator.kill()
        start(Coordinator, None, (coordinator.public, coordinator.internal))
        assert isinstance(future.exception(DEADLINE), errors.JobLost)


def test_no_future_hangs_when_its_job_is_canceled_by_somebody_else(grid: Coordinator, client: Client) -> None:
    nowhere: Any = {"labels": {"gpu": "no worker has this"}}
    with executing(grid.url, requires=nowhere) as executor:
        future = executor.submit(functions.double, 1)
        (job,) = eventually("the job is there", lambda: jobs_of(client, executor.id))
        job.cancel()
        assert isinstance(future.exception(DEADLINE), errors.JobCanceled)


@pytest.mark.parametrize("part", ["_send", "_look"])
def test_no_future_hangs_when_a_thread_of_the_executor_dies(
    grid: Coordinator, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    from divvy import _collector, _engine

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(_engine.Engine if part == "_send" else _collector.Collector, part, fail)
    with executing(grid.url) as executor:
        # The calls are submitted before the thread dies: after that the executor takes no call.
        with together(executor):
            futures = [executor.submit(functions.double, value) for value in range(3)]
        for future in futures:
            assert isinstance(future.exception(DEADLINE), errors.BrokenGridExecutor)
        eventually("it takes no more", lambda: refuses(executor))


def refuses(executor: GridExecutor) -> bool:
    try:
        executor.submit(functions.double, 1)
    except errors.BrokenGridExecutor:
        return True
    return False
