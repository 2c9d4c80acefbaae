"""The effects of the options of ``divvy-python-worker`` at the grid."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, calls
from divvy.worker.claims import Lease, Source
from divvy.worker.service import run_tasks
from divvy.worker.slot import START_TIMEOUT, SlotTimedOut

from . import functions
from .helpers import DEADLINE, SDK, Coordinator, Process, Worker, dead_url, eventually, executing, jobs_of


def test_a_worker_without_functions_runs_named_tasks_only(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    options = ["--import", "tests.functions", "--no-functions"]
    worker = start(Worker, coordinator, *options, slots=1).ready()
    with Client(coordinator.url) as client, executing(client) as executor:
        assert client.call("price", 2).wait(DEADLINE).result == {"tasks": [{"price": 2.0}]}
        future = executor.submit(functions.double, 1)
        (job,) = eventually("the job is there", lambda: jobs_of(client, executor.id))
        eventually("the worker waits", lambda: client.stats()["workers"]["pulling"] >= 1)
        assert "the label python-calls=single-1" in " ".join(job.explain())
        assert future.cancel()
        # One that asks for no label comes all the same, and is declined.
        common = calls.common_fields(attempts=1, timeout=None, session=None, initializer=None)
        body = f'{{"kind":"tasks","max_attempts":1,"params":{{"list":[{calls.single_call(common, print, (), {})}]}}}}'
        made = client.transport.request("POST", "/v1/jobs", body).checked().json()
        (task,) = client.job(made["id"]).wait(DEADLINE).tasks()
        assert "UnknownTask: this worker runs named tasks only" in str(task.get("last_error"))
    assert worker.stop() == 0, worker.lines


def test_labels_and_the_name_of_a_worker_reach_the_grid(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, slots=1).ready()
    start(Worker, coordinator, "--label", "gpu=a100", "--name", "with-a-gpu", slots=1).ready()
    wanted: Any = {"labels": {"gpu": "a100"}}
    with Client(coordinator.url) as client, executing(client, requires=wanted) as executor:
        assert [executor.submit(functions.double, value).result(DEADLINE) for value in range(5)] == [0, 2, 4, 6, 8]
        assert {task.get("worker") for job in jobs_of(client, executor.id) for task in job.tasks()} == {"with-a-gpu"}


def test_slots_come_from_the_environment(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    command = [sys.executable, "-m", "divvy.worker", "--coordinator", coordinator.internal_url]
    worker = start(Process, command, {"DIVVY_SLOTS": "3"})
    worker.logged("with 3 slots")


def test_slots_draw_numbers_of_their_own_also_where_numpy_was_imported_before_they_were_forked(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("numpy")
    coordinator = start(Coordinator)
    start(Worker, coordinator, "--import", "numpy.random", slots=2).ready()
    with executing(coordinator.url) as executor:
        futures = [executor.submit(functions.draw, str(tmp_path), 2) for _ in range(2)]
        assert len({future.result(DEADLINE) for future in futures}) == 2


#: A module with which the process of every slot but the first ends at its start.
ENDS_THE_SECOND_SLOT = """
import os
from pathlib import Path

from divvy.worker import child

serve, has_started = child.main, Path(__file__).with_name("has-started")


def main(*arguments):
    if has_started.exists():
        os._exit(3)
    has_started.touch()
    serve(*arguments)


child.main = main
"""


def test_a_worker_ends_where_its_second_slot_cannot_start(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "ends_the_second_slot.py").write_text(ENDS_THE_SECOND_SLOT)
    command = [sys.executable, "-m", "divvy.worker", "--coordinator", dead_url(), "--slots", "2"]
    path = os.pathsep.join([str(SDK), str(tmp_path)])
    worker = start(Process, [*command, "--import", "ends_the_second_slot"], {"PYTHONPATH": path})
    assert worker.wait() == 1, worker.lines
    assert "error: a slot cannot start: its process exited with status 3; see above" in worker.lines


#: A module with which the process that kills what calls have started ends with its pipe alone, by no signal.
HEARS_NO_SIGNAL = """
from contextlib import suppress

from divvy.worker import watcher


def until_the_end(pipe):
    with suppress(EOFError):
        while True:
            pipe.recv()


watcher.main = until_the_end
"""


def test_a_worker_waits_at_its_end_for_no_process_that_ends_with_it(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "ends_the_second_slot.py").write_text(ENDS_THE_SECOND_SLOT + HEARS_NO_SIGNAL)
    command = [sys.executable, "-m", "divvy.worker", "--coordinator", dead_url(), "--slots", "2"]
    path = os.pathsep.join([str(SDK), str(tmp_path)])
    worker = start(Process, [*command, "--import", "ends_the_second_slot"], {"PYTHONPATH": path})
    assert worker.wait() == 1, worker.lines


def test_a_call_whose_process_does_not_start_in_time_is_told_so() -> None:
    class NeverStarts:
        """In place of a slot."""

        def restart_for(self, _session: object) -> None:
            raise SlotTimedOut

    slot: Any = NeverStarts()
    lease = Lease("attempt", "job", [{"index": 0, "payload": {}}], 1.0, Source("one", {}, {}, is_chunks=False))
    run_tasks(slot, lease, [0], lambda: False, lambda *_: None)
    assert json.loads(lease.outcomes[0])["error"]["kind"] == "TaskCrashed"
    assert f"took longer than {START_TIMEOUT:.0f} s to start" in lease.outcomes[0]


def test_a_coordinator_that_is_none_is_named(start: Callable[..., Any]) -> None:
    worker = start(Process, [sys.executable, "-m", "divvy.worker", "--coordinator", "ftp://host"], {})
    assert worker.wait() == 1
    assert worker.lines == ["error: 'ftp://host' is not an http:// or https:// URL of a service"]


def test_a_variable_that_no_program_reads_is_warned_about(start: Callable[..., Any]) -> None:
    variables = {"DIVVY_SLOT": "3", "DIVVY_CHUNK_SIZE": "10", "DIVVY_LOG": "worker=debug"}
    worker = start(Process, [sys.executable, "-m", "divvy.worker", "--coordinator", "ftp://host"], variables)
    assert worker.wait() == 1
    warnings = [line.partition(" WARNING ")[2] for line in worker.lines[:-1]]
    assert warnings == [
        "DIVVY_LOG is 'worker=debug': this worker takes debug, info, warning or error, and takes it as info",
        "no program reads the variable DIVVY_SLOT: it has no effect",
    ]
