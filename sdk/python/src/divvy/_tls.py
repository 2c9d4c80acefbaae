"""TLS of clients, by the variables that all parts of divvy read.

``DIVVY_CA_FILE`` names authorities to trust beside those of the system, ``DIVVY_CLIENT_CERT`` and ``DIVVY_CLIENT_KEY``
a certificate to show, ``DIVVY_TLS_SERVER_NAME`` the name that a server's certificate must have instead of the URL's.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading

log = logging.getLogger("divvy.tls")

CA_FILE, SERVER_NAME = "DIVVY_CA_FILE", "DIVVY_TLS_SERVER_NAME"
CERT, KEY = "DIVVY_CLIENT_CERT", "DIVVY_CLIENT_KEY"


class ClientTls:
    """The TLS context of requests to ``https://`` URLs. Threads may share it."""

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        *,
        ca_file: str | None = None,
        identity: tuple[str, str] | None = None,
        server_name: str | None = None,
    ) -> None:
        self.server_name = server_name
        self._context = context or ssl.create_default_context()
        self._identity = identity
        self._lock = threading.Lock()
        self._loaded: object = None
        if ca_file is not None:
            try:
                self._context.load_verify_locations(ca_file)
            except OSError as error:
                raise ValueError(f"{CA_FILE}: {ca_file} cannot be used: {error}") from error
        if identity is not None:
            self._load(identity, _stamp(identity))

    @classmethod
    def from_env(cls) -> ClientTls:
        """TLS by the variables. An empty one counts as unset. ``ValueError`` if a file cannot be used."""
        cert, key = os.environ.get(CERT), os.environ.get(KEY)
        if bool(cert) != bool(key):
            raise ValueError(f"set both {CERT} and {KEY}, or neither")
        return cls(
            ca_file=os.environ.get(CA_FILE) or None,
            identity=(cert, key) if cert and key else None,
            server_name=os.environ.get(SERVER_NAME) or None,
        )

    def after_fork(self) -> None:
        """Takes a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """The context of a new connection. A certificate whose files have changed is read again first."""
        if self._identity is not None:
            try:
                stamp = _stamp(self._identity)
                with self._lock:
                    if stamp != self._loaded:
                        self._load(self._identity, stamp)
            except ValueError as error:
                log.warning("%s: the certificate read before stays in use", error)
        return self._context

    def _load(self, identity: tuple[str, str], stamp: object) -> None:
        cert, key = identity
        # A certificate is tried in a context of its own: one that fails would leave the real one without.
        for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self._context):
            try:
                context.load_cert_chain(cert, key, password=_refuse_password)
            except OSError as error:
                raise ValueError(f"{CERT} and {KEY}: {cert} and {key} cannot be used: {error}") from error
        self._loaded = stamp


def _stamp(files: tuple[str, str]) -> object:
    """A value that differs where the files have changed."""
    try:
        stats = [os.stat(file) for file in files]
    except OSError as error:
        raise ValueError(f"{CERT} and {KEY}: {error}") from error
    return [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]


def _refuse_password() -> str:
    # Without this OpenSSL would ask for it on the terminal.
    raise ValueError(f"{KEY}: the key is encrypted")
