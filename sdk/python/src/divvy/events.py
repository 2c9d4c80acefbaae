"""Job events: the coordinator's Server-Sent Events.

A client has one stream for all jobs that it waits for: ``EventHub``. After an outage the hub opens the stream again
and tells its watchers to fetch their jobs, so that missed events do no harm.
"""

from __future__ import annotations

import json
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

from ._connection import Stream
from ._fork import remember
from ._transport import FIRST_PAUSE, LONGEST_PAUSE, Transport, renewed
from .errors import DivvyError, GridError
from .models import JobEvent

#: Types of the events that end a job.
END_TYPES = frozenset({"succeeded", "failed", "canceled"})

#: No event has this number. Asked for what comes after it, a grid first tells the newest event's number: a connection
#: to the events of all jobs that breaks before the first of them is then opened again without a gap.
BEYOND_ALL = 2**64 - 1

#: Seconds of silence after which a stream counts as cut: the coordinator sends a comment every 15 s.
IDLE_TIMEOUT = 45.0

#: Seconds that a stream without watchers is kept: opening it anew costs every watcher a request.
LINGER_SECONDS = 30.0

#: Seconds that a watcher waits for the stream before it goes on without.
CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True)
class StreamReset:
    """The stream cannot go on where it was asked to: events are missing before the next one."""

    asked_after: int
    resumes_after: int

    def __str__(self) -> str:
        return f"the grid does not have the events after {self.asked_after}: going on after {self.resumes_after}"

    def told(self, seen: int | None) -> int:
        """The number after which the stream goes on. Warns of the gap, unless ``seen`` is ``BEYOND_ALL``."""
        if seen != BEYOND_ALL:
            warnings.warn(str(self), RuntimeWarning, stacklevel=3)
        return self.resumes_after


#: Takes an event, or None where events may be missing and the watcher must fetch its job. Must not block.
Watcher = Callable[[JobEvent | None], None]


class EventParser:
    """Makes events of the lines of a stream."""

    def __init__(self) -> None:
        self._data: list[str] = []
        self._event = ""

    def feed(self, line: str) -> Iterator[JobEvent | StreamReset | None]:
        """The event that a line ends, if it does; None for a line that only shows that the stream lives."""
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
        elif line.startswith("event:"):
            self._event = line[6:].strip()
        elif line.startswith(":"):
            yield None
        elif not line and self._data:
            kind, data = self._event, "\n".join(self._data)
            self._data.clear()
            self._event = ""
            yield read_event(kind, data)


def read_event(kind: str, data: str) -> JobEvent | StreamReset:
    """The event that the stream has as ``data``. ``GridError`` for one that no coordinator sends."""
    try:
        value = json.loads(data)
        if kind == "reset" and isinstance(value["asked_after"], int) and isinstance(value["resumes_after"], int):
            return StreamReset(value["asked_after"], value["resumes_after"])
        event = cast(JobEvent, value)
        if isinstance(event["seq"], int) and isinstance(event["job"], str) and isinstance(event["type"], str):
            return event
    except (LookupError, RecursionError, TypeError, ValueError):
        pass
    raise GridError(200, "the stream has what is no event: is a coordinator at this URL?")


def parse_events(lines: Iterable[str]) -> Iterator[JobEvent | StreamReset | None]:
    """Events of a whole stream."""
    parser = EventParser()
    for line in lines:
        yield from parser.feed(line)


class EventHub:
    """One stream of events, for any number of watchers. Its thread runs while somebody watches."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # Reentrant: an executor that is collected as garbage may close its client on any thread.
        self._lock = threading.RLock()
        self._watchers: dict[str, list[Watcher]] = {}
        self._thread: threading.Thread | None = None
        self._stream: Stream | None = None
        self._connected = threading.Event()
        self._closed = threading.Event()
        self._last_seq: int | None = None
        #: Whether the stream has brought an event or a comment.
        self._has_heard = False
        self._watched_at = time.monotonic()
        remember(self)

    def after_fork(self) -> None:
        """Leaves the stream and its watchers to the parent."""
        self._lock = threading.RLock()
        self._watchers, self._thread, self._stream = {}, None, None
        self._connected, self._closed = threading.Event(), renewed(self._closed)

    def add(self, job_id: str, watcher: Watcher) -> None:
        """Calls ``watcher`` with each event of a job. What happens before the stream is there shows as None."""
        with self._lock:
            self._watchers.setdefault(job_id, []).append(watcher)
            self._watched_at = time.monotonic()
            if self._thread is None and not self._closed.is_set():
                thread = threading.Thread(target=self._run, name="divvy-events", daemon=True)
                # No thread starts while the interpreter ends: watchers look for themselves now and then.
                with suppress(RuntimeError):
                    thread.start()
                    self._thread = thread

    def remove(self, job_id: str, watcher: Watcher) -> None:
        """Removes a watcher."""
        with self._lock:
            watchers = self._watchers.get(job_id, [])
            if watcher in watchers:
                watchers.remove(watcher)
            if not watchers:
                self._watchers.pop(job_id, None)

    @contextmanager
    def watching(self, job_id: str, timeout: float | None = None) -> Iterator[Watch]:
        """Watches a job for as long as the block runs. Waits until the stream is there, but not for long."""
        watch = Watch()
        self.add(job_id, watch)
        try:
            self._connected.wait(CONNECT_TIMEOUT if timeout is None else max(0.0, min(timeout, CONNECT_TIMEOUT)))
            yield watch
        finally:
            self.remove(job_id, watch)

    def close(self) -> None:
        """Ends the stream for good. Watchers get None."""
        self._closed.set()
        with self._lock:
            stream, thread = self._stream, self._thread
        if stream is not None:
            stream.abort()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)
        self._tell_all()

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._is_done():
            self._has_heard = False
            try:
                self._follow()
                pause = FIRST_PAUSE
            except DivvyError:
                # A stream that lived before it was cut is no sign of an outage.
                pause = FIRST_PAUSE if self._has_heard else min(pause * 2, LONGEST_PAUSE)
            self._connected.clear()
            self._closed.wait(pause * random.uniform(0.5, 1.0))

    def _is_done(self) -> bool:
        """Whether the thread may end: nobody can begin to watch between this answer and its end."""
        with self._lock:
            if self._watchers and not self._closed.is_set():
                return False
            self._thread = None
            return True

    def _follow(self) -> None:
        headers = {} if self._last_seq is None else {"Last-Event-ID": str(self._last_seq)}
        stream = self._transport.stream("/v1/events", headers, IDLE_TIMEOUT)
        with self._lock:
            self._stream = stream
        self._connected.set()
        self._tell_all()
        try:
            for event in parse_events(stream.lines()):
                self._has_heard = True
                if isinstance(event, StreamReset):
                    self._last_seq = event.resumes_after
                    self._tell_all()
                elif event is not None:
                    self._tell(event)
                if self._closed.is_set() or self._is_unwatched():
                    return
        finally:
            stream.close()

    def _is_unwatched(self) -> bool:
        """Whether the stream has had no watcher for ``LINGER_SECONDS``."""
        with self._lock:
            if self._watchers:
                self._watched_at = time.monotonic()
            return time.monotonic() - self._watched_at > LINGER_SECONDS

    def _tell(self, event: JobEvent) -> None:
        self._last_seq = event["seq"]
        with self._lock:
            watchers = list(self._watchers.get(event["job"], ()))
        for watcher in watchers:
            watcher(event)

    def _tell_all(self) -> None:
        with self._lock:
            watchers = [watcher for each in self._watchers.values() for watcher in each]
        for watcher in watchers:
            watcher(None)


class Watch:
    """A watcher that a thread can wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_news = False
        self._is_over = False

    def __call__(self, event: JobEvent | None) -> None:
        with self._changed:
            self._is_news = True
            self._is_over = self._is_over or event is None or event["type"] in END_TYPES
            self._changed.notify_all()

    def wait(self, timeout: float, *, for_any: bool = False) -> None:
        """Waits until the job may be over, with ``for_any`` until anything happened, or ``timeout`` has passed."""
        until = time.monotonic() + timeout
        with self._changed:
            while not (self._is_over or (for_any and self._is_news)):
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._is_news = self._is_over = False
