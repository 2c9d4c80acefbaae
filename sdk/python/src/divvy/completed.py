"""``as_completed`` for jobs and futures."""

from __future__ import annotations

import concurrent.futures
import math
import queue
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar, overload

from .errors import GridUnreachable, Unavailable
from .events import END_TYPES, Watcher
from .job import LOOK_INTERVAL, Job
from .models import JobEvent

T = TypeVar("T")

if sys.version_info >= (3, 11):
    _TimedOut = TimeoutError
else:

    class _TimedOut(concurrent.futures.TimeoutError, TimeoutError):
        """Before Python 3.11 the standard library's ``as_completed`` raises a class of its own."""


@overload
def as_completed(items: Iterable[Job], timeout: float | None = None) -> Iterator[Job]: ...


@overload
def as_completed(items: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]: ...


@overload
def as_completed(items: Iterable[Job | Future[Any]], timeout: float | None = None) -> Iterator[Job | Future[Any]]: ...


def as_completed(items: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
    """Jobs and futures as they end, those that have ended first.

    ``TimeoutError`` after ``timeout`` seconds, which on Python 3.10 is a ``concurrent.futures.TimeoutError`` as well.
    """
    until = None if timeout is None else time.monotonic() + timeout
    pending: set[Any] = set(items)
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    watchers: list[tuple[Job, Watcher]] = []
    try:
        for item in pending:
            if isinstance(item, Job):
                watcher = _watcher(item, ended)
                watchers.append((item, watcher))
                item._client.hub.add(item.id, watcher)
                ended.put(item)
            else:
                item.add_done_callback(ended.put)
        while pending:
            item = _next(ended, until, len(pending), pending)
            if item in pending and (
                not isinstance(item, Job) or item.is_over or _looked_at(item, until, len(pending)).is_over
            ):
                pending.remove(item)
                # An item that was given away is not kept alive here.
                ended_now = [item]
                del item
                yield ended_now.pop()
    finally:
        for job, watcher in watchers:
            job._client.hub.remove(job.id, watcher)
        for item in pending:
            if isinstance(item, Future):
                _let_go(item, ended.put)


def _let_go(future: Any, callback: Callable[[Any], None]) -> None:
    """Takes a callback off a future that is not done, which would else keep the callbacks of all waits for it."""
    with future._condition:
        # The callbacks of a future that is done may be about to be called.
        if not future.done() and callback in future._done_callbacks:
            future._done_callbacks.remove(callback)


def _watcher(job: Any, ended: queue.SimpleQueue[Any]) -> Watcher:
    def watcher(event: JobEvent | None) -> None:
        if event is None or event["type"] in END_TYPES:
            ended.put(job)

    return watcher


def _looked_at(job: Job, until: float | None, count: int) -> Job:
    """A job as it is now. ``TimeoutError`` where the grid is away for longer than is left."""
    try:
        job._refresh_until(math.inf if until is None else until)
    except (GridUnreachable, Unavailable) as error:
        if until is None or time.monotonic() < until:
            raise
        raise _TimedOut(_left_over(count)) from error
    return job


def _left_over(count: int) -> str:
    return f"{'1 job or future is' if count == 1 else f'{count} jobs and futures are'} not done"


def _next(ended: queue.SimpleQueue[Any], until: float | None, count: int, pending: Iterable[Any]) -> Any:
    while True:
        left = LOOK_INTERVAL if until is None else min(LOOK_INTERVAL, until - time.monotonic())
        try:
            return ended.get(timeout=max(0.0, left))
        except queue.Empty:
            if until is not None and time.monotonic() >= until:
                raise _TimedOut(_left_over(count)) from None
            # An event may have been missed: the jobs are looked at now and then.
            for item in pending:
                if isinstance(item, Job):
                    ended.put(item)
