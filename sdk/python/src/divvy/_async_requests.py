"""HTTP of ``AsyncClient``: requests that come back after an outage, pages and streams, in one event loop at a time."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp

from ._addresses import Address, Addresses
from ._token import check_token
from ._trace import trace_headers
from ._transport import (
    _BUSY,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    USER_AGENT,
    Response,
    check_times,
    client_tls,
    is_event_stream,
    not_a_stream,
    problem,
    unreachable,
)
from .client import DEFAULT_URL, PAGE
from .errors import ClientClosed, GridError, GridUnreachable
from .events import IDLE_TIMEOUT, EventParser, StreamReset
from .models import JobEvent


class AsyncRequests:
    """Requests to a grid over the connections of one event loop."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        retry_for: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = (url or os.environ.get("DIVVY_URL") or DEFAULT_URL).rstrip("/")
        token = token if token is not None else os.environ.get("DIVVY_TOKEN") or None
        self._headers = {
            "User-Agent": USER_AGENT,
            "Content-Type": "application/json",
            **trace_headers(),
            **({"Authorization": f"Bearer {check_token(token)}"} if token else {}),
        }
        check_times(timeout, retry_for)
        self._timeout = timeout
        self._retry_for = retry_for
        self._addresses = Addresses(self.url)
        self._tls = client_tls(self._addresses, ssl_context)
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin()

    def _begin(self) -> None:
        """Resets all state that belongs to an event loop."""
        self._opened: aiohttp.ClientSession | None = None
        self._streams: set[aiohttp.ClientResponse] = set()

    async def _enter_loop(self) -> None:
        """Binds the client to the running loop. The connections of a closed loop ended with it."""
        loop, before = asyncio.get_running_loop(), self._loop
        if before is None:
            self._loop = loop
        if before is None or loop is before:
            return
        if not before.is_closed():
            raise RuntimeError("another event loop uses this AsyncClient: make a client for each loop")
        session, self._loop = self._opened, loop
        self._begin()
        if session is not None:
            await session.close()

    async def _json(
        self, method: str, path: str, body: str | None = None, *, is_safe: bool = True, more_time: float = 0.0
    ) -> Any:
        deadline, pause, others = time.monotonic() + self._retry_for, FIRST_PAUSE, len(self._addresses) - 1
        while True:
            address, is_last = self._addresses.current, time.monotonic() >= deadline and others <= 0
            try:
                response = await self._exchange(address, method, path, body, more_time)
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                self._addresses.move_on(address)
                never_arrived = isinstance(error, aiohttp.ClientConnectorError)
                # No wait changes a certificate that is not trusted.
                is_final = is_last or (isinstance(error, aiohttp.ClientConnectorCertificateError) and others <= 0)
                if not (is_safe or never_arrived) or is_final:
                    raise unreachable(address, error) from error
            else:
                is_busy = response.status in _BUSY
                if is_busy:
                    self._addresses.move_on(address)
                if not is_busy or not is_safe or is_last:
                    return response.checked().json()
            if others > 0:
                # Another coordinator may answer at once.
                others -= 1
                continue
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _exchange(self, address: Address, method: str, path: str, body: str | None, more_time: float) -> Response:
        timeout = aiohttp.ClientTimeout(total=self._timeout + more_time)
        options = self._request_options(address)
        session = await self._session()
        async with session.request(method, address.url + path, data=body, timeout=timeout, **options) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Response(response.status, headers, await response.read())

    async def _pages(self, path: str, query: list[tuple[str, str]]) -> AsyncIterator[Any]:
        token: str | None = None
        while True:
            paged = [*query, ("limit", str(PAGE)), *([("page_token", token)] if token else [])]
            page = await self._json("GET", f"{path}?{urlencode(paged)}")
            yield page
            token = page.get("next_page_token")
            if token is None:
                return

    @asynccontextmanager
    async def _stream(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        address = self._addresses.current
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=IDLE_TIMEOUT)
        options = self._request_options(address)
        try:
            session = await self._session()
            async with session.get(address.url + path, timeout=timeout, **options) as response:
                if response.status in _BUSY:
                    self._addresses.move_on(address)
                if response.status >= 300:
                    raise problem(response.status, await response.read(), response.headers.get("location"))
                if response.status == 200 and not is_event_stream(response.headers.get("content-type")):
                    raise not_a_stream(response.status)
                connection = response.connection
                self._streams.add(response)
                try:
                    yield response
                finally:
                    self._streams.discard(response)
                    # The goodbye of TLS would outlast an event loop that ends now.
                    if self._tls is not None and connection is not None and connection.transport is not None:
                        connection.transport.abort()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            if isinstance(error, (GridUnreachable, PermissionError)):
                raise
            self._addresses.move_on(address)
            raise unreachable(address, error) from error

    def _request_options(self, address: Address) -> dict[str, Any]:
        """Options of a request to an address: its TLS context, and no redirects."""
        if self._tls is None or not address.is_tls:
            return {"allow_redirects": False}
        tls = {"ssl": self._tls.context(), "server_hostname": self._tls.server_name}
        return {"allow_redirects": False, **tls}

    async def _session(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise ClientClosed("the client is closed")
        await self._enter_loop()
        if self._opened is None:
            self._opened = aiohttp.ClientSession(headers=self._headers)
        return self._opened


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[JobEvent | StreamReset | None]:
    """Events of a whole stream, as ``parse_events`` has them."""
    parser = EventParser()
    try:
        async for line in response.content:
            for event in parser.feed(line.decode(errors="replace").rstrip("\r\n")):
                yield event
    except ValueError as error:
        raise GridError(response.status, f"a line of the stream cannot be read: {error}") from error
