"""TLS by the variables that all parts of divvy read, against a coordinator that demands certificates."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor, errors
from divvy._tls import ClientTls
from divvy._transport import Transport
from divvy.aio import AsyncClient

from . import functions
from .certificates import Authority, Certificate
from .helpers import DEADLINE, Coordinator, Worker

if shutil.which("openssl") is None:
    pytest.fail("openssl is not installed: apt-get install openssl (scripts/test.sh does so)")

#: The name of the coordinators' certificate, which is not the host that is asked.
SERVER_NAME = "divvy-coordinator-internal"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def coordinator(start: Callable[..., Any], authority: Authority) -> Coordinator:
    """A coordinator whose internal port demands certificates."""
    own = authority.issue("coordinator", SERVER_NAME)
    variables = {
        "DIVVY_TLS_CERT": str(own.cert),
        "DIVVY_TLS_KEY": str(own.key),
        "DIVVY_TLS_CLIENT_CA": str(authority.cert),
    }
    # A client asks it as localhost, too.
    started: Coordinator = start(Coordinator, None, ("127.0.0.1:0", "127.0.0.1:0"), **variables)
    return started


def trusting(authority: Authority) -> dict[str, str]:
    return {"DIVVY_CA_FILE": str(authority.cert), "DIVVY_TLS_SERVER_NAME": SERVER_NAME}


def showing(certificate: Certificate) -> dict[str, str]:
    return {"DIVVY_CLIENT_CERT": str(certificate.cert), "DIVVY_CLIENT_KEY": str(certificate.key)}


def test_a_worker_and_both_clients_take_their_tls_from_the_environment(
    start: Callable[..., Any], coordinator: Coordinator, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = authority.issue("worker")
    variables = {**trusting(authority), **showing(certificate)}
    start(Worker, coordinator, "--import", "tests.functions", slots=1, **variables).ready()
    for name, value in trusting(authority).items():
        monkeypatch.setenv(name, value)
    with Client(coordinator.url) as client, GridExecutor(client) as executor:
        assert executor.submit(functions.double, 21).result(DEADLINE) == 42
        assert client.call("price", 2).wait(DEADLINE).result == {"tasks": [{"price": 2.0}]}

    async def ask() -> Any:
        async with AsyncClient(coordinator.url) as client:
            job = await client.call("price", 3)
            return await (await job).result()

    assert asyncio.run(ask()) == {"tasks": [{"price": 3.0}]}


def test_a_worker_without_a_certificate_is_told_so(
    start: Callable[..., Any], coordinator: Coordinator, authority: Authority
) -> None:
    stranger = start(Worker, coordinator, slots=1, **trusting(authority)).ready()
    stranger.logged("HTTP 403")


def test_a_server_of_another_name_or_authority_is_refused(
    coordinator: Coordinator, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = pytest.raises(errors.GridUnreachable, match="certificate verify failed")
    with Client(coordinator.url, retry_for=0.0) as client, refused:
        client.stats()
    monkeypatch.setenv("DIVVY_CA_FILE", str(authority.cert))
    monkeypatch.setenv("DIVVY_TLS_SERVER_NAME", "another-name")
    for url in (coordinator.url, coordinator.url.replace("127.0.0.1", "localhost")):
        with Client(url, retry_for=0.0) as client, refused:
            client.stats()
    monkeypatch.setenv("DIVVY_TLS_SERVER_NAME", SERVER_NAME)
    with Client(coordinator.url) as client:
        assert client.stats()["jobs"] == {}


def test_variables_that_cannot_be_used_are_named_and_plain_urls_need_none(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    certificate = authority.issue("client")
    for variables, words in (
        ({"DIVVY_CA_FILE": str(tmp_path / "nothing")}, "DIVVY_CA_FILE"),
        ({"DIVVY_CA_FILE": str(broken)}, "DIVVY_CA_FILE"),
        ({"DIVVY_CLIENT_CERT": str(certificate.cert)}, "both DIVVY_CLIENT_CERT and DIVVY_CLIENT_KEY"),
        (showing(Certificate(certificate.cert, broken)), "cannot be used"),
        (showing(Certificate(certificate.cert, tmp_path / "nothing")), "DIVVY_CLIENT_CERT"),
    ):
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            with pytest.raises(ValueError, match=words):
                Client("https://localhost")
            Client("http://localhost").close()


def test_a_certificate_that_is_renewed_is_shown_at_the_next_connection(
    authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = authority.issue("first"), authority.issue("second")
    server = authority.issue("localhost")
    monkeypatch.setenv("DIVVY_CA_FILE", str(authority.cert))
    for name, value in showing(first).items():
        monkeypatch.setenv(name, value)
    tls = ClientTls.from_env()
    with asking_for_certificates(server, authority) as (port, shown):
        for expected, change in (
            ("first", lambda: None),
            # A renewal that is half done leaves the one read before in use.
            ("first", lambda: first.cert.write_bytes(second.cert.read_bytes())),
            ("second", lambda: first.key.write_bytes(second.key.read_bytes())),
        ):
            change()
            with socket.create_connection(("127.0.0.1", port)) as plain:
                connection = tls.context().wrap_socket(plain, server_hostname="localhost")
                assert connection.recv(2) == b"ok"
                connection.close()
            assert shown.pop() == expected
    assert any("stays in use" in record.message for record in caplog.records if record.levelno == logging.WARNING)


@contextmanager
def asking_for_certificates(server: Certificate, authority: Authority) -> Iterator[tuple[int, list[str]]]:
    """A listener that notes the names of the certificates that it is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    context.load_verify_locations(authority.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    shown: list[str] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with accepted, context.wrap_socket(accepted, server_side=True) as connection:
                subject: Any = (connection.getpeercert() or {}).get("subject", ())
                shown.extend(str(value) for part in subject for _, value in part)
                connection.sendall(b"ok")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], shown
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)


def test_the_port_of_https_is_left_out_of_the_host_that_is_named() -> None:
    transport = Transport("https://localhost", ssl_context=ssl.create_default_context())
    connection = transport._connect(transport._addresses.current, 1.0)
    assert (connection.port, connection.default_port) == (443, 443)
