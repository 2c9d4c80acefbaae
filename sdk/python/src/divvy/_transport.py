"""HTTP to one service over pooled keep-alive connections.

A safe request takes an idle connection where there is one; where the service has closed that meanwhile, it goes over a
new one at once. It is sent again, with backoff and jitter, until ``retry_for`` has passed: over a restart or a takeover
of the coordinator. Others are sent again only if they certainly did not arrive. Where several coordinators are named,
one that does not answer or cannot serve is followed by the next. Proxies and redirects are not followed.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ._addresses import Address, Addresses
from ._connection import Connection, Stream
from ._fork import remember
from ._tls import ClientTls
from ._token import TokenFile, check_token
from .errors import ClientClosed, GridError, GridUnreachable, grid_error

USER_AGENT = "divvy-python/0.1"

#: Idle connections that are kept; more only wait in the service's backlog.
MAX_IDLE_CONNECTIONS = 8

#: The services close an idle connection after 75 s.
MAX_IDLE_SECONDS = 60.0

#: The longest timeout: a socket takes milliseconds in 31 bits.
MAX_SECONDS = 1e6

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0

#: Statuses after which a safe request is sent again. 408: a service that was halted gives up what came meanwhile. 502
#: and 504: a proxy whose coordinator is away.
_BUSY = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True)
class Response:
    """A whole answer."""

    status: int
    #: Headers by their names in lower case.
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. ``GridError`` where it is none, such as the page of a proxy."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            hint = ": is a coordinator at this URL?" if isinstance(error, json.JSONDecodeError) else ""
            raise GridError(self.status, f"the answer cannot be read as JSON ({error}){hint}") from error

    def checked(self) -> Response:
        """This answer, or the exception that stands for its status."""
        if self.status < 300:
            return self
        raise problem(self.status, self.body, self.headers.get("location"))


def problem(status: int, body: bytes, location: str | None = None) -> Exception:
    """The exception for an answer that is an RFC 9457 problem, any other error, or a redirect to ``location``."""
    if location is not None and status < 400:
        return GridError(status, f"the service redirects to {location}, which is not followed: give its URL")
    detail, field = body[:200].decode(errors="replace") or http.client.responses.get(status, ""), None
    is_problem = False
    with suppress(ValueError, AttributeError, RecursionError):
        parsed = json.loads(body)
        detail, field = str(parsed.get("detail", detail)), parsed.get("field")
        is_problem = "detail" in parsed and parsed.get("status") == status
    error = grid_error(status, detail, field)
    error.is_problem = is_problem
    return error


class Transport:
    """Requests to the coordinator at ``url``, or at one of several URLs with commas between. Threads may share it."""

    def __init__(
        self,
        url: str,
        token: str | TokenFile | None = None,
        *,
        timeout: float = 30.0,
        retry_for: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._addresses = Addresses(url)
        check_times(timeout, retry_for)
        self._token_file = token if isinstance(token, TokenFile) else None
        self.timeout = timeout
        self.retry_for = retry_for
        self._tls = client_tls(self._addresses, ssl_context)
        self._headers = {"User-Agent": USER_AGENT, "Accept": "application/json", "Content-Type": "application/json"}
        self._headers.update(headers or {})
        if token and not isinstance(token, TokenFile):
            self._headers["Authorization"] = f"Bearer {check_token(token)}"
        self._idle: deque[tuple[float, Connection]] = deque()
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        remember(self)

    def after_fork(self) -> None:
        """Leaves the connections to the parent: an answer must not come to the wrong one of both."""
        idle, self._idle = self._idle, deque()
        self._lock, self._streams = threading.RLock(), weakref.WeakSet()
        self._closed = renewed(self._closed)
        for part in (self._addresses, self._token_file, self._tls):
            if part is not None:
                part.after_fork()
        for _, connection in idle:
            connection.close()

    @property
    def is_closed(self) -> bool:
        """Whether the transport was closed."""
        return self._closed.is_set()

    def pause(self, seconds: float) -> None:
        """Waits for a time, which a ``close`` ends."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """Closes idle connections, and ends streams and all waits for another try."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, deque()
            streams = list(self._streams)
        for _, connection in idle:
            connection.close()
        for stream in streams:
            stream.abort()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        is_safe: bool | None = None,
        retry_for: float | None = None,
    ) -> Response:
        """Sends a request and reads the answer, whatever its status.

        ``is_safe`` says whether the same request again does no harm; by default GET, PUT and DELETE are.
        """
        is_safe = method != "POST" if is_safe is None else is_safe
        data = body.encode() if isinstance(body, str) else body
        deadline = time.monotonic() + (self.retry_for if retry_for is None else retry_for)
        pause, others = FIRST_PAUSE, len(self._addresses) - 1
        while True:
            address = self._addresses.current
            try:
                response = self._send(address, method, path, data, headers or {}, timeout or self.timeout, is_safe)
            except (OSError, http.client.HTTPException) as error:
                self._addresses.move_on(address)
                # No wait changes a certificate that is not trusted.
                is_final = isinstance(error, ssl.SSLCertVerificationError) or time.monotonic() >= deadline
                is_last = is_final and others <= 0
                if self._closed.is_set() or not (is_safe or never_arrived(error)) or is_last:
                    raise unreachable(address, error) from error
            else:
                if response.status not in _BUSY or self._closed.is_set():
                    return response
                self._addresses.move_on(address)
                if not is_safe:
                    # A coordinator that passed it on may have lost the leader's answer.
                    return response
                if time.monotonic() >= deadline and others <= 0:
                    return response
                pause = max(pause, _retry_after(response)) if others <= 0 else pause
            if others > 0:
                # Another coordinator may answer at once.
                others -= 1
                continue
            self._closed.wait(min(pause * random.uniform(0.5, 1.0), max(0.0, deadline - time.monotonic())))
            pause = min(pause * 2, LONGEST_PAUSE)

    def get_json(self, path: str, **options: Any) -> Any:
        """The JSON at a path."""
        return self.request("GET", path, **options).checked().json()

    def stream(self, path: str, headers: Mapping[str, str], idle_timeout: float) -> Stream:
        """Opens an answer that is read line by line. One try. ``ClientClosed`` after a ``close``, which ends it."""
        address = self._addresses.current
        connection = self._connect(address, idle_timeout)
        try:
            connection.send_request("GET", address.prefix + path, None, {**self._own_headers(), **headers})
            opened = connection.sock
            response = connection.getresponse()
            body = response.read(65536) if response.status >= 300 else b""
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._addresses.move_on(address)
            raise unreachable(address, error) from error
        if response.status >= 300:
            connection.close()
            if response.status in _BUSY:
                self._addresses.move_on(address)
            raise problem(response.status, body, response.headers.get("location"))
        if response.status == 200 and not is_event_stream(response.headers.get("content-type")):
            connection.close()
            raise not_a_stream(response.status)
        stream = Stream(connection, opened, response)
        with self._lock:
            self._streams.add(stream)
        if self._closed.is_set():
            stream.close()
            raise ClientClosed("the client is closed")
        return stream

    def ask(self, use: Callable[[Connection], Response], timeout: float) -> Response:
        """The answer that ``use`` gets over an idle connection or a new one; one try, but that ``use`` is called again
        where the service has closed the idle connection. Raises ``GridUnreachable``.
        """
        address = self._addresses.current
        try:
            response = self._use(address, timeout, use, may_repeat=True)
        except (OSError, http.client.HTTPException) as error:
            self._addresses.move_on(address)
            raise unreachable(address, error) from error
        if response.status in _BUSY:
            self._addresses.move_on(address)
        return response

    def _send(
        self,
        address: Address,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
        is_safe: bool,
    ) -> Response:
        def send(connection: Connection) -> Response:
            return self.exchange(connection, method, path, body, headers)

        return self._use(address, timeout, send, may_repeat=is_safe)

    def _use(
        self, address: Address, timeout: float, use: Callable[[Connection], Response], *, may_repeat: bool
    ) -> Response:
        # The service may have closed an idle connection just now, which looks the same as a lost answer.
        idle = self._take_idle(address, timeout) if may_repeat else None
        if idle is not None:
            try:
                return self._use_and_keep(idle, use)
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException):
                pass
        return self._use_and_keep(self._connect(address, timeout), use)

    def _use_and_keep(self, connection: Connection, use: Callable[[Connection], Response]) -> Response:
        try:
            response = use(connection)
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            self._put_back(connection)
        return response

    def exchange(
        self,
        connection: Connection,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One request and its answer on a connection."""
        headers = {**self._own_headers(), **(headers or {})}
        connection.send_request(method, connection.address.prefix + path, body, headers)
        response = connection.getresponse()
        content = response.read()
        return Response(response.status, {name.lower(): value for name, value in response.headers.items()}, content)

    def _own_headers(self) -> dict[str, str]:
        if self._token_file is None:
            return self._headers
        return {**self._headers, "Authorization": f"Bearer {self._token_file.token()}"}

    def _connect(self, address: Address, timeout: float) -> Connection:
        return Connection(address, timeout, self._tls if address.is_tls else None)

    def _take_idle(self, address: Address, timeout: float) -> Connection | None:
        oldest = time.monotonic() - MAX_IDLE_SECONDS
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, connection = self._idle.pop()
            if since >= oldest and connection.address == address and connection.is_open():
                connection.sock.settimeout(timeout)
                return connection
            connection.close()

    def _put_back(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < MAX_IDLE_CONNECTIONS and not self._closed.is_set():
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()


def is_event_stream(content_type: str | None) -> bool:
    """Whether an answer is Server-Sent Events."""
    return (content_type or "").lower().startswith("text/event-stream")


def not_a_stream(status: int) -> GridError:
    """The exception for an answer that is no stream of events."""
    return GridError(status, "the answer is no stream of events: is a coordinator at this URL?")


def client_tls(addresses: Addresses, context: ssl.SSLContext | None) -> ClientTls | None:
    """The TLS of requests to the addresses: the caller's context, or that of the variables. None without https."""
    if not addresses.has_tls:
        return None
    return ClientTls.from_env() if context is None else ClientTls(context)


def check_times(timeout: float, retry_for: float) -> None:
    """``ValueError`` unless the times, in seconds, can be a client's."""
    if not 0 < timeout <= MAX_SECONDS:
        raise ValueError(f"timeout must be seconds above 0 and up to {MAX_SECONDS:.0f}, not {timeout!r}")
    if not retry_for >= 0:
        raise ValueError(f"retry_for must be seconds from 0, not {retry_for!r}")


def renewed(event: threading.Event) -> threading.Event:
    """A new event in the same state, whose lock no thread of the parent process holds."""
    made = threading.Event()
    if event.is_set():
        made.set()
    return made


def never_arrived(error: BaseException | None) -> bool:
    """Whether a request that ended in an error certainly did not reach the service."""
    return isinstance(error, (ConnectionRefusedError, socket.gaierror))


def unreachable(address: Address, error: BaseException) -> GridUnreachable:
    """The exception for a coordinator that does not answer."""
    return GridUnreachable(f"{address.url} does not answer: {type(error).__name__}: {error}")


def _retry_after(response: Response) -> float:
    try:
        return min(float(response.headers.get("retry-after", "0")), 5.0)
    except ValueError:
        return 0.0
