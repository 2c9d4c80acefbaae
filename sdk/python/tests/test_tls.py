"""``https://`` URLs: a client and a worker behind a proxy that ends TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor, errors

from . import functions
from .helpers import DEADLINE, Coordinator, Worker

if shutil.which("openssl") is None:
    pytest.skip("openssl is not installed", allow_module_level=True)


class TlsProxy:
    """Takes TLS at a port of its own and passes what it gets on to an address."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with (
            suppress(OSError),
            accepted,
            socket.create_connection(self._target) as target,
            self._context.wrap_socket(accepted, server_side=True) as client,
        ):
            back = threading.Thread(target=pass_on, args=(target, client), daemon=True)
            back.start()
            pass_on(client, target)
            back.join(5.0)


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of its own for localhost, with its key beside it."""
    made = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key.pem"), "-out", str(made)]
    subprocess.run([*command, *files], check=True, capture_output=True, timeout=DEADLINE)
    return made


@pytest.fixture
def proxy(certificate: Path) -> Iterator[Callable[[str], TlsProxy]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    proxies: list[TlsProxy] = []

    def start(address: str) -> TlsProxy:
        proxies.append(TlsProxy(address, context))
        return proxies[-1]

    yield start
    for each in proxies:
        each.close()


def test_client_and_worker_speak_tls(
    start: Callable[..., Any], proxy: Callable[[str], TlsProxy], certificate: Path
) -> None:
    coordinator = start(Coordinator)
    public, internal = proxy(coordinator.public), proxy(coordinator.internal)
    options = ["--coordinator", internal.url]
    start(Worker, coordinator, *options, slots=1, SSL_CERT_FILE=str(certificate)).ready()
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Client(public.url, ssl_context=trusting) as client, GridExecutor(client) as executor:
        assert executor.submit(functions.double, 21).result(DEADLINE) == 42


def test_a_certificate_that_nobody_vouches_for_is_refused(
    start: Callable[..., Any], proxy: Callable[[str], TlsProxy]
) -> None:
    coordinator = start(Coordinator)
    refused = pytest.raises(errors.GridUnreachable, match="certificate verify failed")
    with Client(proxy(coordinator.public).url, retry_for=0.1) as client, refused:
        client.stats()
