"""Payloads that no executor makes: each fails with a reason, and ends no worker."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

from divvy import Client, GridExecutor

from . import functions
from .helpers import DEADLINE, Coordinator, Worker


def call(**fields: Any) -> str:
    return json.dumps({"divvy": 1, "task": "price", "args": [1], **fields})


def nested(depth: int) -> str:
    return f'{{"divvy":1,"task":"price","args":[{"[" * depth}{"]" * depth}]}}'


#: What is in the list of a job, and what its task's error says. Where it is None, the call runs.
PAYLOADS: list[tuple[str, str | None]] = [
    (call(task=["price"]), "the field 'task' of the payload must be a string"),
    (call(task=None), "the field 'task' of the payload must be a string"),
    (call(timeout="1"), "the field 'timeout' of the payload must be seconds above 0"),
    (call(timeout=[1]), "the field 'timeout' of the payload must be seconds above 0"),
    (call(timeout=0), "the field 'timeout' of the payload must be seconds above 0"),
    (call(timeout=10**400), "the field 'timeout' of the payload must be seconds above 0"),
    # More milliseconds than a poll takes.
    (call(timeout=10**7), None),
    (call(attempts="2"), "the field 'attempts' of the payload must be a whole number from 1 to 100"),
    (call(attempts=0), "the field 'attempts' of the payload must be a whole number from 1 to 100"),
    (call(args=5), "must be an iterable"),
    (call(divvy="1"), "the call has format '1', this worker takes 1"),
    ("9" * 5000, "the payload cannot be read: ValueError: Exceeds the limit"),
    (f'{{"divvy":1,"task":"price","args":[{"9" * 5000}]}}', "the payload cannot be read: ValueError"),
    (nested(200_000), "RecursionError"),
    # Some interpreters read this and others do not, and none multiplies it.
    (nested(900), "Error: "),
]


def submitted(client: Client, payload: str) -> Any:
    body = f'{{"kind":"tasks","max_attempts":1,"params":{{"list":[{payload}]}}}}'
    made = client.transport.request("POST", "/v1/jobs", body).checked().json()
    return client.job(made["id"])


def test_a_payload_that_cannot_be_run_fails_with_the_reason_and_ends_no_worker(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, "--import", "tests.functions", slots=1).ready()
    with Client(coordinator.url) as client:
        jobs = [submitted(client, payload) for payload, _ in PAYLOADS]
        for job, (payload, reason) in zip(jobs, PAYLOADS, strict=True):
            job.wait(DEADLINE)
            (task,) = client.tasks(job.id)
            said = task.get("last_error")
            assert (reason in said) if reason and said else (reason is said), (payload[:80], said)
        assert client.call("price", 2).wait(DEADLINE).result == {"tasks": [{"price": 2.0}]}
    assert worker.process.poll() is None, worker.lines
    assert worker.stop() == 0, worker.lines


def test_the_error_of_a_named_task_is_told_although_utf_8_cannot_hold_it(grid: Coordinator) -> None:
    with Client(grid.url) as client:
        job = client.call_each("refuse", [["no \udcff"]], max_attempts=1).wait(DEADLINE)
        (task,) = job.tasks()
        assert "no \\udcff" in str(task.get("last_error"))


def test_what_a_call_prints_shows_as_it_is_printed(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    worker = start(Worker, coordinator, slots=1, PYTHONUNBUFFERED="").ready()
    with GridExecutor(coordinator.url, max_attempts=1) as executor:
        executor.submit(print, "as", "printed").result(DEADLINE)
        worker.logged("as printed")
        executor.submit(functions.die, signal.SIGKILL).exception(DEADLINE)
