"""The tasks of a job that the collector reads, and the refusals that it waits out."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from divvy import _collector, errors
from divvy._batch import LONGEST_BUSY_PAUSE, Batch
from divvy._collector import Collector
from divvy._engine import GridFuture
from divvy._transport import Response
from divvy.calls import value_outcome


class Tasks:
    """The tasks of one job, in place of a client and its transport."""

    refusal = Response(401, {}, b"the token is not valid")

    def __init__(self, states: list[str], *, refusals: int = 0, retry_for: float = 60.0) -> None:
        self.states = states
        self.refusals = refusals
        self.retry_for = retry_for
        self.transport = self

    def request(self, _method: str, path: str) -> Response:
        if self.refusals > 0:
            self.refusals -= 1
            return self.refusal
        query = {key: int(value) for key, value in parse_qsl(urlsplit(path).query)}
        first, beyond = query["page_token"], query["page_token"] + query["limit"]
        tasks = [self._task(index) for index in range(first, min(beyond, len(self.states)))]
        return Response(200, {}, json.dumps({"tasks": tasks}).encode())

    def _task(self, index: int) -> dict[str, Any]:
        state = self.states[index]
        outcome = {"result": json.loads(value_outcome(index))} if state == "succeeded" else {}
        return {"index": index, "state": state, **outcome}


def collector_of(client: Any) -> Collector:
    return Collector(client, lambda _: None, lambda: False, lambda: None)


MANY_LONG = ["running", "succeeded", "succeeded", "running"] * 40

ONE_WAITS_AGAIN = ["pending", *["succeeded"] * 9, *["running"] * 10]

PAGE_ENDS_WAITING = [*["running"] * 90, *["pending"] * 10, *["running"] * 10]


@pytest.mark.parametrize(
    ("states", "ends"), [(MANY_LONG, 159), (MANY_LONG, 100), (ONE_WAITS_AGAIN, 15), (PAGE_ENDS_WAITING, 105)]
)
def test_a_call_that_ends_is_seen_whatever_runs_or_waits_before_it(
    monkeypatch: pytest.MonkeyPatch, states: list[str], ends: int
) -> None:
    monkeypatch.setattr(_collector, "LARGEST_PAGE", 100)
    client: Any = Tasks(list(states))
    collector = collector_of(client)
    futures = [GridFuture() for _ in states]
    batch = Batch("job", futures)
    # As when nothing has been new for a while.
    batch.pause = LONGEST_BUSY_PAUSE
    while collector._read(batch, False):
        pass
    assert [future.done() for future in futures] == [state == "succeeded" for state in states]
    client.states[ends] = "succeeded"
    # Some looks come by all open tasks.
    assert any(collector._read(batch, False) for _ in range(10))
    assert futures[ends].result(0) == ends


def test_a_refusal_that_passes_costs_no_outcome() -> None:
    collector = collector_of(Tasks(["succeeded"], refusals=2))
    future = GridFuture()
    batch = Batch("job", [future])
    for is_seen in (False, False, True):
        assert collector._look_or_fail(batch)
        assert future.done() == is_seen
    assert future.result(0) == 0


def test_a_refusal_that_lasts_as_long_as_the_client_waits_ends_futures() -> None:
    collector = collector_of(Tasks(["succeeded"], refusals=1, retry_for=0.0))
    future = GridFuture()
    assert collector._look_or_fail(Batch("job", [future]))
    assert isinstance(future.exception(0), errors.Unauthorized)


def test_a_404_of_a_proxy_says_nothing_of_a_job() -> None:
    tasks = Tasks(["succeeded"], refusals=1)
    tasks.refusal = Response(404, {}, b"<h1>404 page not found</h1>")
    collector = collector_of(tasks)
    future = GridFuture()
    batch = Batch("job", [future])
    assert collector._look_or_fail(batch)
    assert not future.done()
    assert collector._look_or_fail(batch)
    assert future.result(0) == 0


def test_a_job_that_the_grid_does_not_know_ends_its_futures_at_once() -> None:
    tasks = Tasks(["succeeded"], refusals=1)
    problem = {"title": "Not Found", "status": 404, "detail": "there is no such job"}
    tasks.refusal = Response(404, {}, json.dumps(problem).encode())
    future = GridFuture()
    assert collector_of(tasks)._look_or_fail(Batch("job", [future]))
    assert isinstance(future.exception(0), errors.JobLost)
