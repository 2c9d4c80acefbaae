"""Requests of a worker to the coordinator: claims, renewals and reports.

A report is sent until it counts. It is dropped where the coordinator says that the attempt holds no lease any more
(409), such as after an expiry, and fails its attempt where it cannot be taken as it is. Any other refusal may pass.
A failure without an answer may count already: its lease is handed back instead, which costs no attempt.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import Any
from urllib.parse import quote

from .._connection import Connection
from .._token import TokenFile
from .._transport import Response, Transport, never_arrived, problem
from ..errors import DivvyError, GridError, GridUnreachable, Unavailable

log = logging.getLogger("divvy.worker")

#: Seconds that a report is repeated while no coordinator takes it; an attempt that expires meanwhile does not count.
REPORT_FOR = 120.0

#: Seconds of one try of a report while the coordinator is away, and of the pause before the next try.
REPORT_TRY, REPORT_PAUSE = 5.0, 0.5

#: Statuses after which the same report would be refused again: its content is wrong, or too long.
_WRONG = frozenset({400, 413, 415, 422})

#: Statuses of a lease that stays whole: it cannot be divided, or the coordinator cannot divide leases.
_WHOLE = _WRONG | {404}

#: Statuses of a report that may count: the service that passed it on may have lost the answer.
_UNCLEAR = frozenset({502, 503, 504})

#: The attempt holds no lease any more.
_STALE = 409

#: Seconds for the answer to a renewal: a halted coordinator must not delay the renewals of the other leases.
RENEWAL_TIMEOUT = 5.0

#: Seconds for the answer to a claim beyond the time that the coordinator waits for a task.
CLAIM_SLACK = 15.0


@dataclass
class Lease:
    """The right to run one attempt of some tasks until it expires."""

    attempt: str
    job: str
    tasks: list[Any]
    renew_after: float
    source: Source
    #: Whether code in the payloads may run.
    is_admitted: bool = False
    #: The lease's name, where the coordinator gives one: with it a report counts even after a restart.
    name: Any = None
    claimed_at: float = field(default_factory=time.monotonic)
    outcomes: dict[int, str] = field(default_factory=dict)
    #: The reason of the attempt's failure, after which the grid tries all its tasks again.
    failure: str | None = None
    #: Whether the coordinator has ended the lease.
    is_lost: bool = False
    is_begun: bool = False
    #: Whether the lease goes back to the grid: no more of its tasks begin here.
    is_given_up: bool = False
    #: Whether the coordinator has refused to divide the lease.
    is_whole: bool = False
    last_renewed_at: float = field(default_factory=time.monotonic)

    def results(self) -> list[str]:
        """The outcomes of all tasks, in their order."""
        return [self.outcomes[position] for position in range(len(self.tasks))]

    def fitting(self, size: int) -> int:
        """The number of the first results that take at most so many bytes together."""
        return sum(end <= size for end in accumulate(map(len, self.results())))


@dataclass(frozen=True)
class Source:
    """A name under which a worker claims, with the labels that decide what it gets."""

    worker_id: str
    labels: Mapping[str, str]
    resources: Mapping[str, int]
    is_chunks: bool

    def claim(self, max_tasks: int, wait_seconds: float) -> dict[str, Any]:
        """The body of a claim."""
        return {
            "worker_id": self.worker_id,
            "kinds": ["tasks"],
            "labels": dict(self.labels),
            "resources": dict(self.resources),
            "max_tasks": max_tasks,
            "wait_seconds": wait_seconds,
        }


class Coordinator:
    """The coordinators' internal interface. ``url`` may be several with commas between."""

    def __init__(self, url: str, token: str | TokenFile | None) -> None:
        self._transport = Transport(url, token, timeout=30.0, retry_for=0.0)
        self._can_release = True

    def close(self) -> None:
        """Closes connections and ends all waits."""
        self._transport.close()

    def waiting_claim(self, source: Source, max_tasks: int, wait_seconds: float) -> WaitingClaim:
        """A claim that can be taken back while it waits."""
        return WaitingClaim(self._transport, source, source.claim(max_tasks, wait_seconds))

    def complete(self, lease: Lease, results: Sequence[str], claim: Mapping[str, Any] | None) -> Lease | None:
        """Reports results, as JSON texts. Returns the next lease if ``claim`` found one."""
        more = {**({"claim": claim} if claim is not None else {}), **lease_field(lease)}
        tail = f",{json.dumps(more)[1:-1]}" if more else ""
        response = self._report(lease, "complete", f'{{"results":[{",".join(results)}]{tail}}}')
        if response is None or response.status != 200:
            return None
        try:
            return read_lease(response, lease.source)
        except DivvyError as error:
            log.warning("the next claim failed: %s", error)
            return None

    def fail(self, lease: Lease, reason: str) -> None:
        """Reports that an attempt has failed. Where the report may count without an answer, hands the tasks back."""
        # The service takes at most 1000 characters of it, in a body of 64 KiB.
        body = json.dumps({"error": reason[:1000], **lease_field(lease)})
        if self._can_release:
            try:
                response = self._report(lease, "fail", body, _UNCLEAR, is_safe=False)
                is_clear = response is None or response.status not in _UNCLEAR
            except GridUnreachable:
                is_clear = False
            # The next coordinator would count the same failure once more.
            if is_clear or self._release(lease):
                return
        self._report(lease, "fail", body)

    def hand_back(self, lease: Lease) -> None:
        """Hands a lease's tasks back. A coordinator without that request counts a failed attempt."""
        if not self._release(lease):
            self.fail(lease, "WorkerStopping: the worker stopped before it began")

    def _release(self, lease: Lease) -> bool:
        """Reports that a lease's tasks go back; False where the coordinator does not know that request."""
        if self._can_release:
            response = self._report(lease, "release", json.dumps(lease_field(lease)), frozenset({404}))
            if response is None or response.status != 404:
                return True
            self._can_release = False
        return False

    def hand_back_rest(self, lease: Lease, kept: int) -> bool | None:
        """Hands the tasks of a lease back but for the first ``kept``, and cuts them off the lease.

        False if the lease stays whole, also where the request is not taken for ``REPORT_FOR``; None if it is lost.
        """
        whole, beyond = lease.name, lease.tasks[kept]["index"]
        if isinstance(whole, dict):
            # Named before the answer: by then another coordinator may lead, at which another worker holds the rest.
            lease.name = {**whole, "beyond": beyond}
        body = json.dumps({"beyond": beyond, **lease_field(lease)})
        response = self._report(lease, "release", body, _WHOLE | {_STALE})
        is_over = lease.is_lost or self._transport.is_closed
        if is_over if response is None else response.status == _STALE:
            return None
        # Without an answer the lease has all its results to report: none of them must wait for ever.
        if response is None or response.status in _WHOLE:
            lease.name = whole
            return False
        lease.tasks = lease.tasks[:kept]
        return True

    def renew(self, lease: Lease) -> bool | None:
        """Keeps a lease; False if it is lost, None where no coordinator can say."""
        try:
            body = json.dumps(lease_field(lease)) if lease.name is not None else ""
            response = self._post(lease, "renew", body, is_safe=True, timeout=RENEWAL_TIMEOUT)
        except GridUnreachable:
            return None
        if response.status == 200:
            # An answer of something else says nothing of the lease's end.
            with suppress(GridError, LookupError, TypeError):
                lease.renew_after = renewal_interval(response.json()["expires_at"], response.headers.get("date"))
            return True
        # Any other status may pass, such as that of a token that has just been renewed.
        return False if response.status == _STALE else None

    def _report(
        self, lease: Lease, what: str, body: str, answers: frozenset[int] = frozenset(), *, is_safe: bool = True
    ) -> Response | None:
        """Sends a report until it arrives; None if it does not count. Refusals in ``answers`` are the caller's.

        Unless ``is_safe``, raises ``GridUnreachable`` where it may have arrived without an answer.
        """
        deadline = time.monotonic() + REPORT_FOR
        while not lease.is_lost:
            left = max(0.0, min(REPORT_TRY, deadline - time.monotonic()))
            try:
                # Sent again after a lost answer it gets 409, and counts once.
                response = self._post(lease, what, body, is_safe=is_safe, retry_for=left)
            except GridUnreachable as error:
                if not (is_safe or never_arrived(error.__cause__)):
                    log.info("%s of attempt %s got no answer: %s", what, lease.attempt, error)
                    raise
                refusal: Exception = error
            else:
                if response.status < 300 or response.status in answers:
                    return response
                if response.status == _STALE:
                    log.info("attempt %s holds no lease any more: its %s is dropped", lease.attempt, what)
                    return None
                refusal = problem(response.status, response.body, response.headers.get("location"))
                if response.status in _WRONG:
                    log.error("%s of attempt %s was refused: %s", what, lease.attempt, refusal)
                    if what == "complete":
                        name = "ResultTooLarge" if response.status == 413 else "TaskFailed"
                        self.fail(lease, f"{name}: the report was refused: {refusal}")
                    return None
            if time.monotonic() >= deadline or self._transport.is_closed:
                log.warning("%s of attempt %s was not reported: %s", what, lease.attempt, refusal)
                return None
            log.info("%s of attempt %s is reported again: %s", what, lease.attempt, refusal)
            self._transport.pause(REPORT_PAUSE)
        return None

    def _post(self, lease: Lease, what: str, body: str, **options: Any) -> Response:
        path = f"/v1/worker/tasks/{quote(lease.attempt, safe='')}/{what}"
        return self._transport.request("POST", path, body, **options)


class TakenBack(Exception):
    """The claim was taken back before it was sent."""


class WaitingClaim:
    """A claim that waits. Another thread may take it back, after which its connection is not used again."""

    def __init__(self, transport: Transport, source: Source, body: Mapping[str, Any]) -> None:
        self._transport = transport
        self._source = source
        self._body = body
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_taken_back = False

    def run(self) -> Lease | None:
        """The lease, or None if there is none now. Raises what the coordinator answers, or that it does not."""
        try:
            # Sent again where its connection had ended: a lease given to the first one goes back by itself.
            response = self._transport.ask(self._claim, self._body["wait_seconds"] + CLAIM_SLACK)
        except (TakenBack, GridUnreachable):
            if self._is_taken_back:
                return None
            raise
        if response.status == 204:
            return None
        response.checked()
        return read_lease(response, self._source)

    def take_back(self) -> None:
        """Ends the wait. A lease that has come already is read, to be handed back; a later one goes back by itself."""
        with self._lock:
            self._is_taken_back = True
            if self._socket is not None:
                with suppress(OSError):
                    # Not by `SSLSocket.shutdown`, after which the answer could not be deciphered. Both directions: to
                    # a half-closed connection a coordinator owes its answer.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _claim(self, connection: Connection) -> Response:
        if connection.sock is None and not self._is_taken_back:
            connection.connect()
        with self._lock:
            if self._is_taken_back:
                raise TakenBack
            self._socket = connection.sock
        try:
            return self._transport.exchange(connection, "POST", "/v1/worker/claim", json.dumps(self._body))
        finally:
            with self._lock:
                self._socket = None
                if self._is_taken_back:
                    connection.close()


def read_lease(response: Response, source: Source) -> Lease:
    """The lease in an answer."""
    try:
        claimed = json.loads(response.body)
    except (ValueError, RecursionError) as error:
        return unreadable_lease(response.body, source, error)
    if not is_claimed(claimed):
        raise GridError(response.status, "the answer to a claim names no lease: is a coordinator at this URL?")
    renew_after = renewal_interval(claimed["expires_at"], response.headers.get("date"))
    return Lease(
        claimed["attempt"],
        claimed["job"],
        claimed["tasks"],
        renew_after,
        source,
        is_admitted=claimed.get("is_admitted") is True,
        name=claimed.get("lease"),
    )


def is_claimed(value: Any) -> bool:
    """Whether JSON has what a worker reads of the answer to a claim."""
    if not isinstance(value, dict) or not isinstance(tasks := value.get("tasks"), list):
        return False
    are_texts = all(isinstance(value.get(name), str) for name in ("attempt", "job", "expires_at"))
    return are_texts and all(
        isinstance(task, dict) and isinstance(task.get("index"), int) and "payload" in task for task in tasks
    )


def unreadable_lease(body: bytes, source: Source, error: Exception) -> Lease:
    """A lease to decline: its payloads are deeper than Python reads, or hold a number of too many digits."""
    head = re.match(rb'\{"attempt":"([^"]+)","job":"([^"]+)"', body)
    if head is None:
        raise GridUnreachable(f"the answer to a claim cannot be read: {type(error).__name__}: {error}") from error
    failure = f"UnknownTask: the payload cannot be read: {type(error).__name__}: {error}"
    attempt, job = (text.decode(errors="replace") for text in head.groups())
    return Lease(attempt, job, [], 1.0, source, failure=failure)


def lease_field(lease: Lease) -> dict[str, Any]:
    """The field of a report that names the lease."""
    return {} if lease.name is None else {"lease": lease.name}


def renewal_interval(expires_at: str, date: str | None) -> float:
    """Seconds until a lease should be renewed, by the coordinator's own clock; its date has whole seconds."""
    try:
        expires = datetime.fromisoformat(expires_at.replace("Z", "+00:00")[:19] + "+00:00")
        left = (expires - parsedate_to_datetime(date or "")).total_seconds()
    except (AttributeError, TypeError, ValueError):
        left = 4.0
    # Often enough that a canceled job's calls stop soon.
    return min(max(left / 4, 0.25), 2.0)


def is_passing(error: DivvyError) -> bool:
    """Whether the same claim may succeed later."""
    return isinstance(error, (GridUnreachable, Unavailable))
