"""The addresses of a grid: the URL of one coordinator, or of several with commas between.

Requests go to one address at a time. A request that finds it silent or unable to serve moves on to the next.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

#: The most coordinators of one grid that are asked.
MAX_ADDRESSES = 16


@dataclass(frozen=True)
class Address:
    """The address of one coordinator."""

    #: The URL without a slash at its end.
    url: str
    is_tls: bool
    host: str
    port: int
    #: The path before the interface's own ones.
    prefix: str


class Addresses:
    """The coordinators of a grid, and the current one. Threads may share it."""

    def __init__(self, urls: str) -> None:
        texts = [text for text in (part.strip() for part in urls.split(",")) if text]
        if not 1 <= len(texts) <= MAX_ADDRESSES:
            raise ValueError(f"a grid has 1 to {MAX_ADDRESSES} URLs with commas between, not {len(texts)}")
        self.all = [parse(text) for text in texts]
        self._lock = threading.Lock()
        self._at = 0

    def __len__(self) -> int:
        return len(self.all)

    def after_fork(self) -> None:
        """Takes a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    @property
    def current(self) -> Address:
        """The coordinator that is asked now."""
        return self.all[self._at]

    @property
    def has_tls(self) -> bool:
        """Whether any of the URLs is https."""
        return any(address.is_tls for address in self.all)

    def move_on(self, failed: Address) -> None:
        """Asks the next one from now on, unless another thread has moved on from ``failed`` already."""
        with self._lock:
            if self.all[self._at] == failed:
                self._at = (self._at + 1) % len(self.all)


def parse(url: str) -> Address:
    """The address that a URL names. ``ValueError`` if it names none."""
    if "@" in url:
        # The message must not show the password before the sign.
        raise ValueError("the URL of a coordinator must not have a user or a password: access is by token")
    refused = ValueError(f"{url!r} is not an http:// or https:// URL of a service")
    # `urlsplit` drops some white space and accepts the rest.
    if not url.isprintable() or " " in url:
        raise refused
    try:
        parts = urlsplit(url)
        port = parts.port
        # As the look-up of the name does, whose error would be none of a request.
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise ValueError(f"{refused}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise refused
    if not parts.path.isascii():
        # A request's line has no other characters.
        raise refused
    is_tls = parts.scheme == "https"
    port = port or (443 if is_tls else 80)
    return Address(url.rstrip("/"), is_tls, parts.hostname, port, parts.path.rstrip("/"))
