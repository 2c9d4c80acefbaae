"""Answers to a worker's claims and reports that are refusals, or no coordinator's."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from divvy import errors
from divvy._transport import Response
from divvy.worker import claims, service
from divvy.worker.claims import Coordinator, Lease, Source
from divvy.worker.service import Config, Worker

from .helpers import answering, serving

SOURCE = Source("one", {}, {"cpus": 1, "memory_bytes": 0}, is_chunks=False)

#: Answers whose JSON is not that of a claim.
FOREIGN = [
    b"null",
    b"{}",
    b'{"expires_at": 5}',
    b'{"attempt": "a", "job": "b", "expires_at": "c", "tasks": [{"index": 0}]}',
    b'{"attempt": 1, "job": "b", "expires_at": "c", "tasks": []}',
]


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "REPORT_PAUSE", 0.0)


def lease(tasks: int = 1) -> Lease:
    return Lease("attempt", "job", [{"index": index, "payload": {}} for index in range(tasks)], 1.0, SOURCE)


def worker_at(url: str, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker without processes."""
    monkeypatch.setattr(service, "Watcher", lambda _context: None)
    return Worker(Config(url, "one", 1))


@pytest.mark.parametrize("status", [302, 401, 403, 404, 500, 507])
def test_an_outcome_is_reported_until_it_is_taken_where_a_refusal_may_pass(status: int) -> None:
    refused = answering(status, b"not now")
    with serving(lambda *_: True, refused, refused, answering(204)) as (url, seen):
        with closing(Coordinator(url, None)) as coordinator:
            coordinator.complete(lease(), ["1"], None)
        assert len(seen) == 3


@pytest.mark.parametrize("status", [400, 413])
def test_an_outcome_that_the_grid_cannot_take_fails_its_attempt_at_once(status: int) -> None:
    # The log has a part of the answer, which may be cut within a character.
    refused = answering(status, ("x" + "é" * 400).encode())
    with serving(lambda *_: True, refused, answering(204)) as (url, seen):
        with closing(Coordinator(url, None)) as coordinator:
            coordinator.complete(lease(), ["1"], None)
        assert len(seen) == 2


def test_an_outcome_whose_attempt_holds_no_lease_is_dropped() -> None:
    with serving(lambda *_: True, answering(409)) as (url, seen):
        with closing(Coordinator(url, None)) as coordinator:
            coordinator.complete(lease(), ["1"], None)
        assert len(seen) == 1


def asked(targets: list[str]) -> list[str]:
    """The last parts of the targets of reports."""
    return [target.rpartition("/")[2] for target in targets]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # The first answer is lost.
        ([204, 204], ["fail", "release"]),
        ([204, 500, 204], ["fail", "release", "release"]),
        # The failure counts, or its lease has ended.
        ([204, 409], ["fail", "release"]),
        # A coordinator that takes no lease back: without the failure the lease expires, which counts just the same.
        ([204, 404, 500, 204], ["fail", "release", "fail", "fail"]),
    ],
)
def test_a_failure_whose_answer_is_lost_is_followed_by_a_release(answers: list[int], expected: list[str]) -> None:
    targets: list[str] = []
    with (
        serving(lambda connection, _: connection > 0, *map(answering, answers), targets=targets) as (url, _),
        closing(Coordinator(url, None)) as coordinator,
    ):
        coordinator.fail(lease(), "a reason")
    assert asked(targets) == expected


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_failure_whose_answer_another_service_may_have_lost_is_followed_by_a_release(status: int) -> None:
    targets: list[str] = []
    with (
        serving(lambda *_: True, answering(status), answering(204), targets=targets) as (url, _),
        closing(Coordinator(url, None)) as coordinator,
    ):
        coordinator.fail(lease(), "a reason")
        # The failure of the next attempt counts.
        coordinator.fail(lease(), "a reason")
    assert asked(targets) == ["fail", "release", "fail"]


@pytest.mark.parametrize("status", [302, 401, 403, 404, 408, 429, 500, 507])
def test_a_failure_that_is_refused_is_reported_again(status: int) -> None:
    targets: list[str] = []
    refused = answering(status)
    with (
        serving(lambda *_: True, refused, refused, answering(204), targets=targets) as (url, _),
        closing(Coordinator(url, None)) as coordinator,
    ):
        coordinator.fail(lease(), "a reason")
    assert asked(targets) == ["fail", "fail", "fail"]


def test_a_failure_that_never_arrived_is_reported_again() -> None:
    targets: list[str] = []

    class Away:
        """In place of the requests to a coordinator whose port is closed at first."""

        is_closed = False

        def request(self, _method: str, target: str, _body: str, **_options: object) -> Response:
            targets.append(target)
            if len(targets) < 3:
                raise errors.GridUnreachable("no answer") from ConnectionRefusedError()
            return Response(204, {}, b"")

        def pause(self, _seconds: float) -> None:
            pass

    coordinator = Coordinator("http://127.0.0.1:9", None)
    coordinator.close()
    transport: Any = Away()
    coordinator._transport = transport
    coordinator.fail(lease(), "a reason")
    assert asked(targets) == ["fail", "fail", "fail"]


def test_a_lease_that_goes_back_fails_where_the_coordinator_takes_none_back() -> None:
    targets: list[str] = []
    with (
        serving(lambda *_: True, answering(404), answering(204), targets=targets) as (url, _),
        closing(Coordinator(url, None)) as coordinator,
    ):
        coordinator.hand_back(lease())
        coordinator.hand_back(lease())
    assert asked(targets) == ["release", "fail", "fail"]


@pytest.mark.parametrize(
    ("status", "kept", "targets"),
    [
        (204, 2, ["release", "complete"]),
        # The lease cannot be divided.
        (422, 4, ["release", "fail"]),
        # It is lost.
        (409, 4, ["release"]),
    ],
)
def test_results_that_are_too_long_together_are_reported_as_far_as_they_fit(
    monkeypatch: pytest.MonkeyPatch, status: int, kept: int, targets: list[str]
) -> None:
    monkeypatch.setattr(service, "MAX_REPORT_BYTES", 10)
    reported: list[str] = []
    with serving(lambda *_: True, answering(status), answering(204), targets=reported) as (url, _):
        worker = worker_at(url, monkeypatch)
        long = lease(4)
        long.name = {"worker_id": "one", "job": "job", "first": 0, "beyond": 4}
        long.outcomes = dict.fromkeys(range(4), '"abc"')
        with closing(worker._coordinator):
            worker._report(long)
    assert asked(reported) == targets
    assert len(long.tasks) == kept


def test_a_result_that_is_too_long_by_itself_fails_its_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_REPORT_BYTES", 10)
    reported: list[str] = []
    with serving(lambda *_: True, answering(204), targets=reported) as (url, _):
        worker = worker_at(url, monkeypatch)
        long = lease(2)
        long.outcomes = {0: '"eleven of"', 1: "2"}
        with closing(worker._coordinator):
            worker._report(long)
    assert asked(reported) == ["fail"]


@pytest.mark.parametrize(("status", "is_kept"), [(200, True), (401, None), (404, None), (409, False), (500, None)])
def test_a_lease_is_lost_only_where_the_coordinator_says_so(status: int, is_kept: bool | None) -> None:
    with serving(lambda *_: True, answering(status)) as (url, _), closing(Coordinator(url, None)) as coordinator:
        assert coordinator.renew(lease()) is is_kept


@pytest.mark.parametrize("body", FOREIGN)
def test_an_answer_of_another_service_is_a_named_error_and_ends_no_thread(body: bytes) -> None:
    with serving(lambda *_: True, answering(200, body)) as (url, _), closing(Coordinator(url, None)) as coordinator:
        with pytest.raises(errors.GridError, match="names no lease: is a coordinator at this URL"):
            coordinator.waiting_claim(SOURCE, 1, 0.0).run()
        assert coordinator.complete(lease(), ["1"], SOURCE.claim(1, 0.0)) is None
        assert coordinator.renew(lease()) is True
