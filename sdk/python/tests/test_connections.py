"""Connections that are kept: what uses them, and what becomes of those that the service has closed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from divvy import Client, GridExecutor
from divvy._transport import Transport
from divvy.worker.claims import Coordinator as Claims
from divvy.worker.claims import Source, WaitingClaim

from . import functions
from .helpers import DEADLINE, Coordinator, Proxy, Worker, answering, dead_url, eventually, serving

SOURCE = Source("one", {}, {"cpus": 1, "memory_bytes": 0}, is_chunks=False)


class CountingProxy(Proxy):
    """Counts the connections that it takes."""

    taken = 0

    def _serve(self, accepted: socket.socket) -> None:
        self.taken += 1
        super()._serve(accepted)


@pytest.fixture
def counting() -> Iterator[Callable[[str], CountingProxy]]:
    made: list[CountingProxy] = []

    def start(address: str) -> CountingProxy:
        made.append(CountingProxy(address))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_a_worker_opens_few_connections_however_many_calls_it_runs(
    start: Callable[..., Any], counting: Callable[[str], CountingProxy]
) -> None:
    coordinator = start(Coordinator)
    proxy = counting(coordinator.internal)
    worker = start(Worker, coordinator, "--coordinator", proxy.url, slots=1).ready()
    with GridExecutor(coordinator.url) as executor:
        for value in range(20):
            assert executor.submit(functions.double, value).result(DEADLINE) == 2 * value
            assert list(executor.map(functions.double, [value])) == [2 * value]
    # One for each source of tasks that waits, and some for reports and renewals.
    assert proxy.taken <= 6
    assert worker.stop() == 0, worker.lines


def test_a_claim_that_is_taken_back_ends_and_its_connection_is_not_used_again(
    start: Callable[..., Any], counting: Callable[[str], CountingProxy]
) -> None:
    coordinator = start(Coordinator)
    proxy = counting(coordinator.internal)
    with closing(Claims(proxy.url, None)) as claims, Client(coordinator.url) as client:
        assert claims.waiting_claim(SOURCE, 1, 0.0).run() is None
        assert claims.waiting_claim(SOURCE, 1, 0.0).run() is None
        assert proxy.taken == 1
        assert client.stats()["workers"]["pulling"] == 1
        waiting = claims.waiting_claim(SOURCE, 1, 50.0)
        ended: list[Any] = []
        thread = threading.Thread(target=lambda: ended.append(waiting.run()))
        thread.start()
        eventually("it waits", lambda: waiting._socket is not None)
        waiting.take_back()
        thread.join(DEADLINE)
        assert ended == [None]
        assert claims.waiting_claim(SOURCE, 1, 0.0).run() is None
        assert proxy.taken == 2


def test_a_claim_that_is_taken_back_ends_although_the_coordinator_keeps_its_connection() -> None:
    may_end = threading.Event()
    with serving(lambda *_: not may_end.wait()) as (url, seen):
        transport = Transport(url, retry_for=0.0)
        waiting = WaitingClaim(transport, SOURCE, SOURCE.claim(1, 600.0))
        ended: list[Any] = []
        thread = threading.Thread(target=lambda: ended.append(waiting.run()), daemon=True)
        thread.start()
        eventually("it is asked", lambda: seen)
        waiting.take_back()
        thread.join(DEADLINE)
        may_end.set()
        assert ended == [None]
        transport.close()


def test_an_idle_connection_that_is_closed_as_it_is_used_is_replaced_once_without_a_word() -> None:
    with serving(lambda connection, request: (connection, request) != (0, 1)) as (url, seen):
        transport = Transport(url, retry_for=0.0)
        assert transport.request("GET", "/").status == 204
        assert transport.request("GET", "/").status == 204
        assert seen == [(0, 0), (0, 1), (1, 0)]
        transport.close()


def test_a_claim_whose_idle_connection_ends_is_sent_again_once_over_a_new_one() -> None:
    with serving(lambda connection, request: (connection, request) != (0, 1)) as (url, seen):
        transport = Transport(url, retry_for=0.0)
        for _ in range(2):
            assert WaitingClaim(transport, SOURCE, SOURCE.claim(1, 0.0)).run() is None
        assert seen == [(0, 0), (0, 1), (1, 0)]
        transport.close()


class CountingSocket:
    """A socket whose sends are counted."""

    def __init__(self, made: socket.socket) -> None:
        self._made = made
        self.sent: list[int] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(len(data))
        self._made.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def test_a_short_request_goes_out_at_once_and_a_long_body_by_itself() -> None:
    with serving(lambda *_: True) as (url, seen):
        transport = Transport(url)
        connection = transport._connect(transport._addresses.current, DEADLINE)
        connection.connect()
        counted = CountingSocket(connection.sock)
        connection.sock = counted
        for body in (None, "", "x" * 1000, b"x" * 1_000_000):
            assert transport.exchange(connection, "POST", "/", body).status == 204
        assert len(counted.sent) == 5 and counted.sent[2] > 1000 and counted.sent[4] == 1_000_000
        assert len(seen) == 4
        connection.close()
        transport.close()


def test_what_may_not_be_repeated_takes_no_idle_connection() -> None:
    with serving(lambda *_: True) as (url, seen):
        transport = Transport(url)
        for method in ("GET", "POST", "GET"):
            assert transport.request(method, "/").status == 204
        assert seen[:2] == [(0, 0), (1, 0)] and seen[2][1] == 1
        transport.close()


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_what_may_not_be_repeated_is_sent_once_also_to_a_busy_grid(status: int) -> None:
    with serving(lambda *_: True, answering(status)) as (url, seen):
        for other in ("", f",{dead_url()}"):
            transport = Transport(url + other, retry_for=0.3)
            assert transport.request("POST", "/").status == status
            assert len(seen) == 1
            seen.clear()
            transport.close()
    with serving(lambda *_: True, answering(status), answering(204)) as (url, seen):
        transport = Transport(url)
        assert transport.request("GET", "/").status == 204
        assert len(seen) == 2
        transport.close()


def test_an_idle_connection_whose_end_has_come_is_not_used() -> None:
    with serving(lambda _, request: request < 1) as (url, seen):
        transport = Transport(url)
        assert transport.request("GET", "/").status == 204
        (_, idle), *_ = transport._idle
        with suppress(OSError):
            socket.socket.shutdown(idle.sock, socket.SHUT_WR)
        eventually("its end is there", lambda: not idle.is_open())
        began = time.monotonic()
        assert transport.request("GET", "/").status == 204
        assert seen == [(0, 0), (1, 0)]
        assert time.monotonic() - began < DEADLINE
        transport.close()
