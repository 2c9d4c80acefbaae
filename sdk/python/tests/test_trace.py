"""The span of the environment goes on with a client's requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from divvy import AsyncClient, Client
from divvy._trace import MAX_STATE_BYTES, trace_headers
from divvy._transport import Transport

#: The example of the Recommendation, section 3.2.3.
EXAMPLE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Recorder(ThreadingHTTPServer):
    """A service that keeps the headers of its requests and answers each with an empty object."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def do_GET(self) -> None:
        self.server.seen.append(self.headers)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *_: object) -> None:
        """Keeps the output of the tests short."""


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        thread = threading.Thread(target=recorder.serve_forever, daemon=True)
        thread.start()
        yield recorder
        recorder.shutdown()
        thread.join()


def test_requests_of_both_clients_are_part_of_the_span_of_the_environment(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", EXAMPLE)
    monkeypatch.setenv("TRACESTATE", "vendor=1")

    async def ask() -> None:
        async with AsyncClient(recorder.url) as client:
            await client.stats()

    with Client(recorder.url) as client:
        client.stats()
    asyncio.run(ask())
    assert [(seen["traceparent"], seen["tracestate"]) for seen in recorder.seen] == [(EXAMPLE, "vendor=1")] * 2


def test_requests_of_a_worker_are_part_of_no_span(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", EXAMPLE)
    transport = Transport(recorder.url)
    transport.get_json("/")
    transport.close()
    assert [seen["traceparent"] for seen in recorder.seen] == [None]


@pytest.mark.parametrize(
    ("parent", "sent"),
    [
        (f" {EXAMPLE}\t", EXAMPLE),
        (f"cc{EXAMPLE[2:]}-more", EXAMPLE),
        (f"{EXAMPLE}-more", None),
        (f"ff{EXAMPLE[2:]}", None),
        (EXAMPLE.upper(), None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", None),
        ("", None),
    ],
)
def test_a_span_that_is_not_as_it_must_be_is_left_out(
    monkeypatch: pytest.MonkeyPatch, parent: str, sent: str | None
) -> None:
    monkeypatch.setenv("TRACEPARENT", parent)
    monkeypatch.delenv("TRACESTATE", raising=False)
    assert trace_headers() == ({} if sent is None else {"traceparent": sent})


@pytest.mark.parametrize("state", ["", "a=1\r\nb: 2", "a=ä", "a" * (MAX_STATE_BYTES + 1)])
def test_what_no_header_can_have_of_a_span_is_left_out(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setenv("TRACEPARENT", EXAMPLE)
    monkeypatch.setenv("TRACESTATE", state)
    assert trace_headers() == {"traceparent": EXAMPLE}
