"""Connections to one coordinator, and answers that arrive over time."""

from __future__ import annotations

# Looking up a host's name imports this, and a process that is forked meanwhile could never import it.
import encodings.idna  # noqa: F401
import http.client
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ._addresses import Address
from ._tls import ClientTls
from .errors import GridUnreachable

#: A shorter body goes out with its head by one system call, in one packet if it fits.
MAX_JOINED_BYTES = 64 * 1024

#: An event's data is a job event, whose longest part is an error of 1000 characters.
MAX_LINE_BYTES = 1024 * 1024


class Connection(http.client.HTTPConnection):
    """A connection to one coordinator, over TLS where ``tls`` is given."""

    def __init__(self, address: Address, timeout: float, tls: ClientTls | None) -> None:
        super().__init__(address.host, address.port, timeout=timeout)
        self.address = address
        self._tls = tls
        #: Parts of a request that wait for the others.
        self._parts: list[bytes] | None = None
        if tls is not None:
            # The port that is not named in the request's `Host`.
            self.default_port = 443

    def connect(self) -> None:
        """Connects, and shakes hands."""
        super().connect()
        if self._tls is not None:
            name = self._tls.server_name or self.address.host
            self.sock = self._tls.context().wrap_socket(self.sock, server_hostname=name)

    def send_request(self, method: str, path: str, body: bytes | str | None, headers: Mapping[str, str]) -> None:
        """Sends a request, its head together with its body unless that is long."""
        parts: list[bytes] = []
        self._parts = parts
        try:
            self.request(method, path, body, headers)
        finally:
            self._parts = None
        is_short = sum(map(len, parts)) <= MAX_JOINED_BYTES
        for part in [b"".join(parts)] if is_short else parts:
            self.send(part)

    def send(self, data: Any) -> None:
        """Sends a part of a request, or keeps it until the whole of it is there."""
        if self._parts is None:
            super().send(data)
        else:
            self._parts.append(data)

    def is_open(self) -> bool:
        """Whether an idle connection can be used: a readable one has ended or got an unasked answer."""
        if self.sock is None:
            return False
        looked_at = select.poll()
        looked_at.register(self.sock, select.POLLIN)
        return not looked_at.poll(0)


class Stream:
    """An answer that arrives over time. One thread reads and closes it; another may ``abort`` it, which ends a read."""

    def __init__(
        self, connection: http.client.HTTPConnection, opened: socket.socket | None, response: http.client.HTTPResponse
    ) -> None:
        self._connection = connection
        self._socket = opened
        self._response = response
        self.status = response.status

    def lines(self) -> Iterator[str]:
        """Lines without their ends, until the answer ends. Raises ``GridUnreachable`` when it is cut."""
        try:
            while line := self._response.readline(MAX_LINE_BYTES):
                yield line.decode(errors="replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise GridUnreachable(f"the stream was cut: {type(error).__name__}: {error}") from error
        finally:
            self.close()

    def abort(self) -> None:
        """Ends the stream."""
        with suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Frees the connection."""
        self._response.close()
        self._connection.close()
