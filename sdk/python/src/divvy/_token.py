"""The token that a request shows: a string, or the content of a file, which is read again when it changes.

Kubernetes renews the tokens of service accounts in their files.
"""

from __future__ import annotations

import logging
import os
import threading

log = logging.getLogger("divvy.token")

#: The longest token that is read: a header of a request has to hold it.
MAX_TOKEN_BYTES = 8 * 1024


class TokenFile:
    """The token of a file, without the white space and the byte order mark around it. Threads may share it.

    Where the file's new content is no token, the one read before stays in use. ``ValueError`` if there never was one.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = _stamp(path)
        self._token = _read(path)
        #: The last logged reason for which the file cannot be read.
        self._told: str | None = None

    def after_fork(self) -> None:
        """Takes a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def token(self) -> str:
        """The token as the file has it now."""
        stamp = _stamp(self._path)
        with self._lock:
            if stamp != self._seen:
                try:
                    self._token = _read(self._path)
                    self._seen, self._told = stamp, None
                    log.info("%s: the token was read again", self._path)
                except ValueError as error:
                    # The next request reads it again: it may fail for a while without any change of the file.
                    if str(error) != self._told:
                        log.warning("%s: the token read before stays in use", error)
                    self._told = str(error)
            return self._token


def check_token(token: str) -> str:
    """The token. ``ValueError`` or ``TypeError``, which do not show it, if it cannot stand in a header."""
    if not isinstance(token, str):
        raise TypeError(f"a token is a string, not {type(token).__name__}")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("a token has visible ASCII characters only")
    return token


def _stamp(path: str) -> object:
    """A value that differs where the file has changed; None if it cannot be looked at."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise ValueError(str(error)) from error
    if len(content) > MAX_TOKEN_BYTES:
        raise ValueError(f"{path} is longer than {MAX_TOKEN_BYTES} bytes")
    token = content.decode("utf-8-sig", errors="replace").strip()
    if not token:
        raise ValueError(f"{path} is empty")
    try:
        return check_token(token)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
