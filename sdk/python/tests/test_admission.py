"""Calls carry code: which tokens let it run, and what a worker declines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, calls, errors
from divvy.worker.service import not_admitted

from . import functions
from .helpers import DEADLINE, Coordinator, Proxy, Worker, executing

TOKENS = {"submitter": ["read", "submit"], "programmer": ["read", "submit", "programs"]}


@pytest.fixture
def guarded(start: Callable[..., Any], tmp_path: Path) -> Coordinator:
    """A coordinator that demands tokens, each of which is its own name."""
    file = tmp_path / "tokens.toml"
    entries = [
        f'[[token]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\nrights = {rights}\n'
        for name, rights in TOKENS.items()
    ]
    file.write_text("\n".join(entries))
    coordinator: Coordinator = start(Coordinator, DIVVY_API_TOKENS_FILE=str(file))
    return coordinator


def test_calls_need_a_token_with_the_right_to_programs(start: Callable[..., Any], guarded: Coordinator) -> None:
    start(Worker, guarded, "--import", "tests.functions", slots=1).ready()
    with Client(guarded.url, token="submitter") as client, executing(client) as executor:
        with pytest.raises(errors.Unauthorized, match=r'carry code, and the token lacks the right "programs"'):
            executor.submit(functions.double, 1).result(DEADLINE)
        with pytest.raises(errors.Unauthorized):
            list(executor.map(functions.double, [1]))
        assert client.call("price", 3).wait(DEADLINE).result == {"tasks": [{"price": 3.0}]}
    with Client(guarded.url, token="programmer") as client, executing(client) as executor:
        assert executor.submit(functions.double, 21).result(DEADLINE) == 42
        assert list(executor.map(functions.double, range(4), chunksize=2)) == [0, 2, 4, 6]


def test_a_job_made_by_hand_needs_the_right_too(guarded: Coordinator) -> None:
    common = calls.common_fields(attempts=1, timeout=None, session=None, initializer=None)
    call = calls.single_call(common, functions.double, (1,), {})
    escaped = call.replace("divvy", r"d\u0069vvy", 1)
    with Client(guarded.url, token="submitter") as client:
        for payload in (call, escaped):
            body = f'{{"kind":"tasks","params":{{"list":[{payload}]}}}}'
            response = client.transport.request("POST", "/v1/jobs", body)
            assert response.status == 403, response.body


def test_without_tokens_a_grid_that_others_reach_takes_no_calls_and_says_how_to_turn_them_on(
    start: Callable[..., Any],
) -> None:
    coordinator = start(Coordinator, None, ("0.0.0.0:0", "127.0.0.1:0"))
    with Client(coordinator.url) as client, executing(client) as executor:
        error = executor.submit(functions.double, 1).exception(DEADLINE)
        assert isinstance(error, errors.Unauthorized)
        assert "DIVVY_API_TOKENS_FILE" in str(error)


def forget_admission(data: bytes) -> bytes:
    """Takes out of answers that a job was admitted, at the same length."""
    return data.replace(b'"is_admitted":true', b'"is_admitted":null')


@pytest.fixture
def forgetful() -> Iterator[Callable[[str], Proxy]]:
    made: list[Proxy] = []

    def start(address: str) -> Proxy:
        made.append(Proxy(address, alter=forget_admission))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_worker_declines_a_call_whose_job_it_is_not_told_to_be_admitted(
    start: Callable[..., Any], forgetful: Callable[[str], Proxy]
) -> None:
    coordinator = start(Coordinator)
    options = ["--coordinator", forgetful(coordinator.internal).url, "--import", "tests.functions"]
    start(Worker, coordinator, *options, slots=1).ready()
    with Client(coordinator.url) as client, executing(client, max_attempts=1) as executor:
        with pytest.raises(errors.NotAdmitted, match="submitted without the right 'programs'"):
            executor.submit(functions.double, 1).result(DEADLINE)
        with pytest.raises(errors.NotAdmitted):
            list(executor.map(functions.double, [1, 2]))
        assert client.call("price", 3).wait(DEADLINE).result == {"tasks": [{"price": 3.0}]}


@pytest.mark.parametrize(
    ("payload", "is_code"),
    [
        ({"divvy": 1, "call": "gASV"}, True),
        ({"divvy": 1, "initializer": "gASV"}, True),
        ({"divvy": 2}, True),
        ({"divvy": 1, "task": "price", "call": "gASV"}, False),
        ({"call": "gASV"}, False),
        ([1], False),
    ],
)
def test_what_the_worker_takes_for_code_is_what_the_coordinator_does(payload: Any, is_code: bool) -> None:
    from divvy.worker.claims import Lease, Source

    source = Source("one", {}, {}, is_chunks=False)
    for is_admitted in (False, True):
        lease = Lease("attempt", "job", [], 1.0, source, is_admitted=is_admitted)
        assert (not_admitted(lease, payload) is not None) == (is_code and not is_admitted)
