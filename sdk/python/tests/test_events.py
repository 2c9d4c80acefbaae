"""The pause before a stream of events is opened again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from divvy import errors
from divvy._transport import FIRST_PAUSE
from divvy.events import EventHub

#: Streams that the hub opens in a test.
TIMES = 6


class CutStreams:
    """In place of a transport and its streams, each of which is cut after some lines."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def stream(self, *_: object) -> CutStreams:
        return self

    def lines(self) -> Iterator[str]:
        yield from self._lines
        raise errors.GridUnreachable("cut")

    def close(self) -> None:
        """Nothing is open."""


class Pauses(threading.Event):
    """In place of the event of a hub's end, which comes after some pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        if len(self.seconds) == TIMES:
            self.set()
        return self.is_set()


@pytest.mark.parametrize(("lines", "grows"), [([": alive"], False), ([], True)])
def test_the_pause_before_the_next_stream_grows_only_where_none_lives(lines: list[str], grows: bool) -> None:
    transport: Any = CutStreams(lines)
    hub = EventHub(transport)
    pauses = hub._closed = Pauses()
    hub._watchers["job"] = [lambda _: None]
    hub._run()
    assert len(pauses.seconds) == TIMES
    # At random, a pause is cut by half at most.
    assert (max(pauses.seconds) > FIRST_PAUSE) == grows
