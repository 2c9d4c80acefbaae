"""Versions that do not fit: what is declined, and what the grid says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor, __version__, calls, errors

from . import functions
from .helpers import DEADLINE, Coordinator, Worker, eventually, executing, jobs_of


def payload(**fields: object) -> dict[str, Any]:
    common = calls.common_fields(attempts=1, timeout=None, session=None, initializer=None)
    made: dict[str, Any] = json.loads(calls.single_call(common, functions.double, (1,), {}))
    return {**made, **fields}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (payload(python="2.7"), "VersionMismatch: the call is from Python 2.7, this worker runs"),
        (payload(cloudpickle="0.1"), "VersionMismatch: the call is from cloudpickle 0.1, this worker has"),
        (payload(sdk="0.0.9"), "VersionMismatch: the call is from divvy 0.0.9, this worker has"),
        (payload(divvy=99), "VersionMismatch: the call has format 99, this worker takes 1"),
        ({"somebody": "else's"}, "UnknownTask: the payload is no call for a Python worker"),
        (
            {"divvy": 1, "task": "nothing", "args": []},
            "UnknownTask: this worker has no function registered as 'nothing'",
        ),
    ],
)
def test_a_worker_declines_what_it_cannot_run_and_says_why(start: Callable[..., Any], call: object, words: str) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, slots=1).ready()
    with Client(coordinator.url) as client:
        job = client.submit("tasks", {"list": [call]}, max_attempts=1).wait(DEADLINE)
        assert job.state == "failed"
        (task,) = job.tasks()
        assert words in str(task.get("last_error"))
        assert type(calls.failed_task(str(task.get("last_error")))) is not errors.TaskFailed


def test_a_declined_call_ends_its_future_with_the_named_error(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = start(Coordinator)
    start(Worker, coordinator, slots=1).ready()
    with executing(coordinator.url, max_attempts=1) as executor:
        executor._common = executor._common.replace(f'"python":"{calls.PYTHON}"', '"python":"2.7"')
        with pytest.raises(errors.VersionMismatch, match=r"the call is from Python 2\.7"):
            executor.submit(functions.double, 1).result(DEADLINE)


def test_explain_names_the_version_that_no_worker_has(
    grid: Coordinator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PYTHON", "2.7")
    executor = GridExecutor(grid.url)
    executor.submit(functions.double, 1)
    (job,) = eventually("the job is there", lambda: jobs_of(client, executor.id))
    assert "the label python=2.7" in " ".join(client.explain(job.id))
    assert "the label python=2.7" in str(job.refresh().notice)
    executor.shutdown(wait=False, cancel_futures=True)
    eventually("the job is canceled", lambda: job.refresh().state == "canceled")


def other_python() -> str | None:
    """An interpreter of another version that runs, from the versions beside this one."""
    for version in ("3.10", "3.12", "3.13"):
        if version == calls.PYTHON:
            continue
        for candidate in [
            *Path.home().glob(f".pyenv/versions/{version}*/bin/python"),
            shutil.which(f"python{version}"),
        ]:
            if (
                candidate
                and subprocess.run([str(candidate), "-c", ""], check=False, capture_output=True).returncode == 0
            ):
                return str(candidate)
    return None


def test_a_worker_of_another_python_gets_none_of_this_ones_calls(start: Callable[..., Any]) -> None:
    python = other_python()
    if python is None:
        pytest.skip("there is no other Python here")
    import cloudpickle

    coordinator = start(Coordinator)
    paths = os.pathsep.join([str(Path(calls.__file__).parents[1]), str(Path(cloudpickle.__file__).parents[1])])
    worker = start(Worker, coordinator, slots=1, python=python, PYTHONPATH=paths)
    worker.ready()
    with Client(coordinator.url) as client, executing(client) as executor:
        future = executor.submit(functions.double, 1)
        (job,) = eventually("the job is there", lambda: jobs_of(client, executor.id))
        eventually("the worker waits", lambda: client.stats()["workers"]["pulling"] >= 2)
        assert f"the label python={calls.PYTHON}" in " ".join(client.explain(job.id))
        start(Worker, coordinator, slots=1).ready()
        assert future.result(DEADLINE) == 2


def test_a_later_patch_of_the_sdk_is_taken_and_another_minor_version_is_named(
    grid: Coordinator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = calls.major_minor(__version__)
    assert calls.mismatch(payload(sdk=f"{own}.99")) is None
    monkeypatch.setattr(calls, "__version__", "99.1.0")
    executor = GridExecutor(grid.url)
    executor.submit(functions.double, 1)
    (job,) = eventually("the job is there", lambda: jobs_of(client, executor.id))
    assert "the label divvy-sdk=99.1" in " ".join(client.explain(job.id))
    executor.shutdown(wait=False, cancel_futures=True)
    eventually("the job is canceled", lambda: job.refresh().state == "canceled")
