"""Certificates of an authority of the test's own, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .helpers import DEADLINE


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """An authority whose files are in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.cert, self._key = directory / "ca.pem", directory / "ca.key"
        names = ["-subj", "/CN=an authority", "-keyout", str(self._key), "-out", str(self.cert)]
        # The extensions that RFC 5280 asks of an authority: Python 3.13 looks for them.
        extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, *extensions)

    def issue(self, name: str, *hosts: str) -> Certificate:
        """A certificate for a server of these names, or for a client."""
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", str(made.key),
                "-out", str(request))  # fmt: skip
        names = ",".join(f"DNS:{host}" for host in hosts or (name,))
        lines = [f"subjectAltName={names}", "basicConstraints=critical,CA:FALSE", "authorityKeyIdentifier=keyid"]
        extensions.write_text("\n".join(lines) + "\n")
        signer = ["-CA", str(self.cert), "-CAkey", str(self._key), "-CAcreateserial", "-days", "1"]
        openssl("x509", "-req", "-in", str(request), "-out", str(made.cert), *signer, "-extfile", str(extensions))
        return made


def openssl(*arguments: str) -> None:
    """Runs a command of openssl's."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=DEADLINE)
