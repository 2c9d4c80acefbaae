"""Options of ``divvy-python-worker``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from divvy import Client, calls
from divvy.worker.cli import configure

from . import functions
from .helpers import DEADLINE, Coordinator, Process, Worker, eventually, executing, jobs_of


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slots", "0"], "--slots must be from 1 to 1024"),
        (["--slots", "1025"], "--slots must be from 1 to 1024"),
        (["--slots", "two"], "invalid int value: 'two'"),
        (["--label", "gpu"], "--label takes KEY=VALUE"),
        (["--memory-per-slot", "lots"], "'lots' is no size such as 512MiB"),
        (["--drain-timeout", "-1"], "--drain-timeout must be 0 or more"),
        (["--import", "no.such.module"], "--import no.such.module: No module named 'no'"),
        (["extra"], "unrecognized arguments: extra"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        configure(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        ([], {"DIVVY_SLOTS": "many"}, "error: DIVVY_SLOTS must be a whole number, not 'many'"),
        ([], {"DIVVY_DRAIN_TIMEOUT_MS": "1s"}, "error: DIVVY_DRAIN_TIMEOUT_MS must be a whole number, not '1s'"),
        (["--coordinator", "ftp://host"], {}, "error: 'ftp://host' is not an http:// or https:// URL of a service"),
    ],
)
def test_what_a_worker_cannot_start_with_is_named(
    start: Callable[..., Any], arguments: list[str], variables: dict[str, str], words: str
) -> None:
    worker = start(Process, [sys.executable, "-m", "divvy.worker", *arguments], variables)
    assert worker.wait() == 1
    assert worker.lines == [words]
