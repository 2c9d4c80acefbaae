"""The tasks of a job that the collector reads, the refusals that it waits out, and the cancels that it tries again."""

from __future__ import annotations

import json
import pickle
import threading
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from divvy import _collector, errors
from divvy._batch import LONGEST_BUSY_PAUSE, Batch
from divvy._collector import Collector
from divvy._engine import GridFuture
from divvy._transport import Response
from divvy.calls import error_field, error_outcome, value_outcome

from .helpers import DEADLINE


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


def test_a_job_is_watched_before_it_can_end() -> None:
    client: Any = Tasks(["succeeded"])
    collector = collector_of(client)
    were_idle: list[bool] = []

    class Hub:
        """In place of the stream of events."""

        def add(self, _id: str, _watcher: object) -> None:
            were_idle.append(collector.is_idle())

    client.hub = Hub()
    collector.add(Batch("job", [GridFuture()]))
    # A watcher that came after the job's end would stay for ever.
    assert were_idle == [True] and not collector.is_idle()


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


@pytest.mark.parametrize(("kind", "breaks"), [("BrokenGridExecutor", True), ("raised", False)])
def test_only_an_initializer_that_fails_breaks_the_executor_and_no_call_that_raises_the_same(
    kind: str, breaks: bool
) -> None:
    error = errors.BrokenGridExecutor("its initializer failed")
    field = error_field(kind, str(error), type_name="BrokenGridExecutor", pickled=pickle.dumps(error))
    broken: list[BaseException] = []
    client: Any = Tasks([])
    collector = Collector(client, broken.append, lambda: False, lambda: None)
    future = GridFuture()
    task = {"index": 0, "state": "succeeded", "result": json.loads(error_outcome(field))}
    assert collector._note(Batch("job", [future]), task)
    assert isinstance(future.exception(0), errors.BrokenGridExecutor)
    assert broken == ([future.exception(0)] if breaks else [])


class Cancels:
    """Answers cancels, in place of a client and its transport: at first as told, then that the job is canceled."""

    is_closed = False

    def __init__(self, *first: Response | errors.DivvyError, retry_for: float = 600.0) -> None:
        self.first = list(first)
        self.asked: list[tuple[str, str]] = []
        self.retry_for = retry_for
        self.transport = self

    def request(self, method: str, path: str, **_options: Any) -> Response:
        self.asked.append((method, path))
        answer = self.first.pop(0) if self.first else Response(200, {}, b"{}")
        if isinstance(answer, errors.DivvyError):
            raise answer
        return answer


def cancel_and_end(client: Any) -> Collector:
    """A collector whose thread has ended after the cancel of a job, which another thread asked for."""
    is_fed = threading.Event()
    is_fed.set()
    collector = Collector(client, lambda _: None, is_fed.is_set, lambda: None)
    collector.start()
    collector.cancel(Batch("job", []))
    is_fed.clear()
    collector.shut_down()
    collector.join()
    return collector


BUSY = Response(503, {}, b"the coordinator is stopping")

AWAY = errors.GridUnreachable("nothing answers")


def test_a_cancel_that_the_grid_does_not_take_at_first_is_tried_again() -> None:
    client = Cancels(AWAY, BUSY, AWAY, Response(404, {}, b"<h1>404 page not found</h1>"))
    assert cancel_and_end(client).is_idle()
    assert client.asked == [("POST", "/v1/jobs/job/cancel")] * 5


@pytest.mark.parametrize("status", [404, 409])
def test_the_cancel_of_a_job_that_is_over_or_gone_is_not_tried_again(status: int) -> None:
    problem = {"title": "as it is", "status": status, "detail": "there is nothing to cancel"}
    client = Cancels(Response(status, {}, json.dumps(problem).encode()))
    assert cancel_and_end(client).is_idle()
    assert len(client.asked) == 1


def test_a_cancel_is_given_up_when_the_client_has_waited_for_long_enough(caplog: pytest.LogCaptureFixture) -> None:
    client = Cancels(*[BUSY] * 9, retry_for=0.0)
    assert cancel_and_end(client).is_idle()
    assert len(client.asked) == 1
    assert "job job could not be canceled: " in caplog.text


def test_an_executor_that_breaks_cancels_its_jobs_before_its_thread_ends_and_closes_the_client() -> None:
    has_ended = threading.Event()
    asked_at_end: list[int] = []

    class Slow(Cancels):
        def request(self, method: str, path: str, **options: Any) -> Response:
            # Time for a thread that has nothing left to do.
            has_ended.wait(0.3)
            return super().request(method, path, **options)

    def note_end() -> None:
        asked_at_end.append(len(client.asked))
        has_ended.set()

    client: Any = Slow()
    collector = Collector(client, lambda _: None, lambda: False, note_end)
    futures = [GridFuture(), GridFuture()]
    for number, future in enumerate(futures):
        batch = Batch(f"job-{number}", [future])
        batch.due_at = time.monotonic() + DEADLINE
        collector._batches[batch.id] = batch
    collector.shut_down()
    collector.start()
    collector.break_down(ZeroDivisionError("a defect"))
    collector.join()
    assert [type(future.exception(0)) for future in futures] == [errors.BrokenGridExecutor] * 2
    assert sorted(client.asked) == [("POST", f"/v1/jobs/job-{number}/cancel") for number in range(2)]
    assert asked_at_end == [2]


def test_an_executor_that_is_collected_as_garbage_while_its_cancels_are_looked_at_hangs_no_thread() -> None:
    collector = collector_of(Cancels())
    answers: list[bool] = []

    def collect() -> None:
        with collector._cancels._lock:
            # As its finalizer does, which the garbage collection runs on any thread.
            answers.append(collector.is_idle())

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert answers == [True]


def test_a_thread_that_looks_at_the_cancels_waits_for_none_that_has_their_collector() -> None:
    collector = collector_of(Cancels())
    taken: list[bool] = []

    def take() -> None:
        taken.append(collector._changed.acquire(blocking=False))

    with collector._cancels._lock:
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        thread.join(DEADLINE)
    assert taken == [False]
