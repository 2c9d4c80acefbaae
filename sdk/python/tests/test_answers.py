"""Answers that no coordinator gives: of a proxy, or of another service at the URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from divvy import AsyncClient, Client, GridExecutor, errors

from .helpers import DEADLINE, answering, eventually, serving

#: An answer, and what the error says of it.
ANSWERS = [
    (answering(200, b"<html>come back later</html>"), "is a coordinator at this URL"),
    (answering(308, location="https://grid.example/"), "redirects to https://grid.example/"),
]

USES: list[Callable[[Client], object]] = [
    lambda client: client.stats(),
    lambda client: client.submit("sleep", {"seconds": 1}),
    lambda client: list(client.events("one", follow=False)),
]


async def use_all(url: str) -> list[BaseException | object]:
    async with AsyncClient(url, retry_for=0.0) as client:
        events = anext(client.events("one", follow=False))
        uses = [client.stats(), client.submit("sleep", {"seconds": 1}), events]
        return list(await asyncio.gather(*uses, return_exceptions=True))


@pytest.mark.parametrize(("answer", "told"), ANSWERS)
def test_an_answer_that_is_no_coordinators_is_a_named_error(answer: bytes, told: str) -> None:
    with serving(lambda *_: True, answer) as (url, _), Client(url, retry_for=0.0) as client:
        for use in USES:
            with pytest.raises(errors.GridError, match=told):
                use(client)
        raised = asyncio.run(use_all(url))
        assert [(type(each), told in str(each)) for each in raised] == [(errors.GridError, True)] * 3, raised
        # Only its own call fails: the executor goes on.
        with GridExecutor(client) as executor:
            for _ in range(2):
                assert isinstance(executor.submit(abs, -1).exception(DEADLINE), errors.GridError)


@pytest.mark.parametrize("status", [408, 502, 503, 504])
def test_events_go_on_after_an_outage_that_a_proxy_tells_of(status: int) -> None:
    event = {"seq": 1, "job": "one", "type": "succeeded"}
    body = f"data: {json.dumps(event)}\n\n".encode()
    answers = (answering(status, b"<html>"), answering(200, body, **{"content-type": "text/event-stream"}))
    with serving(lambda *_: True, *answers) as (url, seen), Client(url) as client:
        assert list(client.events("one")) == [event]
        assert len(seen) == 2

    async def follow(url: str) -> list[Any]:
        async with AsyncClient(url) as client:
            return [event async for event in client.events("one")]

    with serving(lambda *_: True, *answers) as (url, seen):
        assert asyncio.run(follow(url)) == [event]
        assert len(seen) == 2


def test_events_go_on_where_the_answer_of_a_proxy_is_cut() -> None:
    event = {"seq": 1, "job": "one", "type": "succeeded"}
    cut = answering(503, b"no length of a chunk\r\n", **{"transfer-encoding": "chunked"})
    stream = answering(200, f"data: {json.dumps(event)}\n\n".encode(), **{"content-type": "text/event-stream"})
    with serving(lambda *_: True, cut, stream) as (url, _), Client(url) as client:
        assert list(client.events("one")) == [event]


@pytest.mark.filterwarnings("error")
def test_events_of_all_jobs_go_on_where_they_were_when_the_first_connection_breaks_before_any() -> None:
    reset = (
        b'event: reset\nid: 7\ndata: {"asked_after":18446744073709551615,"oldest":1,"newest":7,"resumes_after":7}\n\n'
    )
    event = {"seq": 8, "job": "one", "type": "succeeded"}
    bodies = (reset, f"data: {json.dumps(event)}\n\n".encode())
    streams = [answering(200, body, **{"content-type": "text/event-stream"}) for body in bodies]
    targets: list[str] = []
    with serving(lambda *_: True, *streams, targets=targets) as (url, _), Client(url) as client:
        assert next(client.events()) == event

    async def follow(url: str) -> Any:
        async with AsyncClient(url) as client:
            return await anext(client.events())

    with serving(lambda *_: True, *streams, targets=targets) as (url, _):
        assert asyncio.run(follow(url)) == event
    assert targets == [f"/v1/events?after={2**64 - 1}", "/v1/events?after=7"] * 2


def test_the_time_that_a_reader_of_events_takes_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now, sleep=lambda _: None)
    for module in ("client", "aio"):
        monkeypatch.setattr(f"divvy.{module}.time", clock)
    events = [{"seq": 1, "job": "one", "type": "started"}, {"seq": 2, "job": "one", "type": "succeeded"}]
    bodies = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    first, second = (answering(200, body, **{"content-type": "text/event-stream"}) for body in bodies)
    answers = (first, answering(503), second)
    with serving(lambda *_: True, *answers) as (url, _), Client(url) as client:
        read = client.events("one")
        assert next(read) == events[0]
        now += 1000.0
        assert list(read) == events[1:]

    async def follow(url: str) -> None:
        nonlocal now
        async with AsyncClient(url) as client:
            read = client.events("one")
            assert await anext(read) == events[0]
            now += 1000.0
            assert [event async for event in read] == events[1:]

    with serving(lambda *_: True, *answers) as (url, _):
        asyncio.run(follow(url))


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        '{"seq": "1", "job": "one", "type": "started"}',
        "null",
        "[1]",
        "no JSON",
        pytest.param("[" * 50_000, id="deep"),
        pytest.param('{"asked_after": 1, "resumes_after": 1e999}\nevent: reset', id="reset"),
    ],
)
def test_what_is_no_event_is_a_named_error(data: str) -> None:
    stream = answering(200, f"data: {data}\n\n".encode(), **{"content-type": "text/event-stream"})

    async def follow(url: str) -> None:
        async with AsyncClient(url) as client:
            with pytest.raises(errors.GridError, match="is a coordinator at this URL"):
                await anext(client.events("one"))

    with serving(lambda *_: True, stream) as (url, _):
        with Client(url) as client, pytest.raises(errors.GridError, match="is a coordinator at this URL"):
            next(client.events("one"))
        asyncio.run(follow(url))


def test_a_stream_of_what_are_no_events_is_opened_again() -> None:
    stream = answering(200, b"data: {}\n\n", **{"content-type": "text/event-stream"})
    with serving(lambda *_: True, stream) as (url, seen):
        with Client(url) as client, client.hub.watching("one", 0.0):
            eventually("it is opened again", lambda: len(seen) > 1)
        before = len(seen)

        async def follow() -> None:
            async with AsyncClient(url) as client, client.watching("one", 0.0):
                await asyncio.to_thread(eventually, "it is opened again", lambda: len(seen) > before + 1)

        asyncio.run(follow())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": 0}, "timeout must be seconds above 0"),
        ({"timeout": float("nan")}, "timeout must be seconds above 0"),
        ({"timeout": float("inf")}, "timeout must be seconds above 0"),
        ({"retry_for": -1}, "retry_for must be seconds from 0"),
        ({"retry_for": float("nan")}, "retry_for must be seconds from 0"),
        ({"token": b"secret"}, "a token is a string, not bytes"),
        ({"url": "http://a host"}, "'http://a host' is not an http:// or https:// URL"),
        ({"url": "http://host\n:80"}, "is not an http:// or https:// URL"),
        ({"url": "http://a..host"}, "'http://a..host' is not an http:// or https:// URL of a service: "),
        ({"url": f"http://{'a' * 64}"}, f"'http://{'a' * 64}' is not an http:// or https:// URL of a service: "),
        ({"url": "http://host/ä"}, "'http://host/ä' is not an http:// or https:// URL"),
        ({"url": "http://host:0"}, "'http://host:0' is not an http:// or https:// URL"),
        ({"url": "http://host:port"}, "'http://host:port' is not an http:// or https:// URL of a service: Port could"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_wrong_options_of_a_client_are_told_at_once(kind: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, TypeError)) as refused:
        kind(**{"url": "http://localhost", **options})
    assert told in str(refused.value)


def test_a_call_under_a_name_that_no_function_can_have_is_refused() -> None:
    with Client("http://localhost") as client, pytest.raises(ValueError, match="a task's name has 1 to 128"):
        client.call("two words")
