"""Two coordinators over one PostgreSQL: the leader is killed, and clients and workers go on."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divvy import Client
from divvy.aio import AsyncClient

from . import functions
from .helpers import COMMAND, DEADLINE, Coordinator, Process, Worker, eventually, executing, read
from .postgres import Postgres


class Group:
    """Coordinators that share a database."""

    def __init__(self, start: Callable[..., Any], directory: Path, database_url: str, **variables: str) -> None:
        self.coordinators: list[Coordinator] = []
        for number in range(2):
            self.coordinators.append(
                start(
                    Coordinator,
                    DIVVY_COORDINATOR_ID=f"coordinator-{number}",
                    DIVVY_STORE_URL=database_url,
                    DIVVY_RESULTS_URL=f"file://{directory}",
                    **variables,
                )
            )
        self.urls = ",".join(coordinator.url for coordinator in self.coordinators)
        self.internal_urls = ",".join(coordinator.internal_url for coordinator in self.coordinators)
        eventually("one leads", self.leaders)

    def leaders(self) -> list[Coordinator]:
        """The coordinators that say that they lead."""
        running = [coordinator for coordinator in self.coordinators if coordinator.process.poll() is None]
        return [coordinator for coordinator in running if leads(coordinator)]

    def kill_leader(self) -> None:
        """Kills the leader, and returns when another one leads."""
        # For a moment no coordinator leads if the leader was halted.
        (leader,) = eventually("one leads", self.leaders)
        leader.kill()
        eventually("another one leads", self.leaders)


def leads(coordinator: Coordinator) -> bool:
    try:
        with urllib.request.urlopen(f"{coordinator.internal_url}/metrics", timeout=5) as answer:
            return "divvy_leader 1" in answer.read().decode().splitlines()
    except OSError:
        return False


@pytest.fixture(scope="module")
def postgres() -> Any:
    server = Postgres()
    yield server
    server.kill()


def test_calls_jobs_and_a_worker_survive_the_leader(
    start: Callable[..., Any], postgres: Postgres, tmp_path: Path
) -> None:
    # The next leader waits so long for the worker to name the call that it runs, however slow the machine is.
    group = Group(start, tmp_path / "results", postgres.url("takeover"), DIVVY_RECOVERY_MS="10000")
    worker = start(
        Worker, group.coordinators[0], "--coordinator", group.internal_urls, "--import", "tests.functions", slots=2
    ).ready()
    with Client(group.urls) as client, executing(client) as executor:
        running = executor.submit(functions.touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
        slot = eventually("it runs", lambda: read(tmp_path / "runs"))
        calls = tmp_path / "calls"
        calls.mkdir()
        waiting = [executor.submit(functions.count_call, str(calls), 0.0) for _ in range(100)]
        outcomes: list[Any] = []

        async def follow() -> None:
            async with AsyncClient(group.urls) as asynchronous:
                jobs = [await asynchronous.call("price", amount) for amount in range(5)]
                blocked = await asynchronous.submit("sleep", {"seconds": 0}, requires={"labels": {"gpu": "none"}})
                group_is_killed = asyncio.to_thread(group.kill_leader)
                outcomes.extend(await asyncio.gather(*jobs, group_is_killed))
                outcomes.append([(await job.result())["tasks"][0]["price"] for job in jobs])
                outcomes.append((await blocked.cancel()).state)

        asyncio.run(asyncio.wait_for(follow(), 5 * DEADLINE))
        assert outcomes[-2:] == [[0.0, 1.0, 2.0, 3.0, 4.0], "canceled"]
        late = executor.submit(functions.double, 21)
        (tmp_path / "go").touch()
        assert running.result(DEADLINE) == str(tmp_path / "go")
        # The lease outlived its coordinator: the call did not run again.
        assert read(tmp_path / "runs") == slot
        assert len([future.result(DEADLINE) for future in waiting]) == 100
        assert late.result(DEADLINE) == 42
        assert client.call("price", 7).wait(DEADLINE).result == {"tasks": [{"price": 7.0}]}
    assert worker.stop() == 0, worker.lines


def test_events_of_a_job_go_on_at_the_next_coordinator(
    start: Callable[..., Any], postgres: Postgres, tmp_path: Path
) -> None:
    group = Group(start, tmp_path / "results", postgres.url("events"))
    with Client(group.urls) as client:
        job = client.call("price", 1)
        events = client.events(job.id)
        first = next(events)
        group.kill_leader()
        start(
            Worker, group.coordinators[0], "--coordinator", group.internal_urls, "--import", "tests.functions", slots=1
        ).ready()
        rest = list(events)
        assert (first["type"], rest[-1]["type"]) == ("submitted", "succeeded")
        assert [event["seq"] for event in rest] == sorted({event["seq"] for event in rest})


def test_up_gives_its_python_workers_every_coordinator(
    start: Callable[..., Any], postgres: Postgres, tmp_path: Path, scripts: str
) -> None:
    options = ["--port", "0", "--internal-port", "0", "--workers", "1", "--coordinators", "2", "--python-workers", "1"]
    variables = {"PATH": scripts, "DIVVY_LOG": "error", "DIVVY_RESULTS_URL": f"file://{tmp_path}"}
    grid = start(Process, [str(COMMAND), "up", *options, "--store-url", postgres.url("up")], variables)
    line = grid.logged("workers of your own: ")
    internal_urls = line.partition("workers of your own: ")[2].split()
    assert len(internal_urls) == 2
    worker = eventually("its worker runs", lambda: python_worker_of(grid.pid))
    assert worker[worker.index("--coordinator") + 1] == ",".join(internal_urls)
    urls = eventually("it prints its URLs", lambda: printed_urls(grid, 2))
    with Client(",".join(urls)) as client, executing(client) as executor:
        assert executor.submit(functions.double, 4).result(DEADLINE) == 8


def printed_urls(grid: Process, count: int) -> list[str] | None:
    urls = [line for line in grid.lines if line.startswith("http")]
    return urls if len(urls) == count else None


def python_worker_of(pid: int) -> list[str] | None:
    """The command of a process' first child that is a Python worker."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            arguments = stat.with_name("cmdline").read_text().split("\0")
        except OSError:
            continue
        if parent == pid and any("divvy-python-worker" in argument for argument in arguments):
            return arguments
    return None
