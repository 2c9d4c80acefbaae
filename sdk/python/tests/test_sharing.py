"""Calls that share slots: chunks that wait behind long ones, and single calls beside a map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from divvy import Client

from . import functions
from .helpers import DEADLINE, Coordinator, Worker, eventually, executing, jobs_of, read, together


def test_chunks_that_wait_behind_a_long_one_are_run_by_another_worker(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    coordinator = start(Coordinator)
    names, gate = [str(tmp_path / f"call-{number}") for number in range(8)], str(tmp_path / "gate")
    with Client(coordinator.url) as client, executing(coordinator.url) as executor:
        with together(executor):
            results = executor.map(functions.touch_and_wait, names, [gate, *names[1:]])
        (job,) = eventually("they are at the grid", lambda: jobs_of(client, executor.id))
        # No other worker waits for tasks: this one gets all of them.
        start(Worker, coordinator, slots=1).ready()
        first = eventually("the first one runs", lambda: read(Path(names[0])))
        start(Worker, coordinator, slots=1).ready()
        others = [eventually("it runs", lambda name=name: read(Path(name))) for name in names[1:]]  # type: ignore[misc]
        assert first not in others
        Path(gate).touch()
        assert list(results) == [gate, *names[1:]]
        assert job.wait(DEADLINE).state == "succeeded"
        assert [task["attempts"] for task in client.tasks(job.id)] == [1] * 8


def test_single_calls_run_beside_a_map_that_keeps_every_slot_busy(start: Callable[..., Any], tmp_path: Path) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, slots=1).ready()
    gate, count = tmp_path / "gate", 6_000
    with executing(coordinator.url) as executor:
        # The map takes two minutes while there is no gate.
        results = executor.map(functions.nap_unless, [str(gate)] * count)
        next(results)
        # The claim that waits when the map begins brings the first call.
        for number in range(4):
            assert executor.submit(functions.double, number).result(DEADLINE) == 2 * number
        gate.touch()
        assert sum(1 for _ in results) == count - 1
