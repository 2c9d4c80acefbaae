"""``https://`` URLs: a client and a worker behind a proxy that ends TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from divvy import AsyncClient, Client, GridExecutor, errors

from . import functions
from .helpers import DEADLINE, Coordinator, Proxy, Worker

if shutil.which("openssl") is None:
    pytest.skip("openssl is not installed", allow_module_level=True)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of its own for localhost, with its key beside it."""
    made = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key.pem"), "-out", str(made)]
    subprocess.run([*command, *files], check=True, capture_output=True, timeout=DEADLINE)
    return made


@pytest.fixture
def proxy(certificate: Path) -> Iterator[Callable[[str], Proxy]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    proxies: list[Proxy] = []

    def start(address: str) -> Proxy:
        proxies.append(Proxy(address, context))
        return proxies[-1]

    yield start
    for each in proxies:
        each.close()


def test_client_and_worker_speak_tls(
    start: Callable[..., Any], proxy: Callable[[str], Proxy], certificate: Path
) -> None:
    coordinator = start(Coordinator)
    public, internal = proxy(coordinator.public), proxy(coordinator.internal)
    options = ["--coordinator", internal.url]
    start(Worker, coordinator, *options, slots=1, SSL_CERT_FILE=str(certificate)).ready()
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Client(public.url, ssl_context=trusting) as client, GridExecutor(client) as executor:
        assert executor.submit(functions.double, 21).result(DEADLINE) == 42


def test_a_certificate_that_nobody_vouches_for_is_refused(
    start: Callable[..., Any], proxy: Callable[[str], Proxy]
) -> None:
    coordinator = start(Coordinator)
    refused = pytest.raises(errors.GridUnreachable, match="certificate verify failed")
    began = time.monotonic()
    # It is not trusted later either.
    with Client(proxy(coordinator.public).url, retry_for=10 * DEADLINE) as client, refused:
        client.stats()

    async def ask() -> None:
        async with AsyncClient(client.url, retry_for=10 * DEADLINE) as other:
            await other.stats()

    with pytest.raises(errors.GridUnreachable, match="certificate verify failed"):
        asyncio.run(ask())
    assert time.monotonic() - began < DEADLINE
