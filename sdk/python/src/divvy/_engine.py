"""The engine of ``GridExecutor``: a queue of calls, and a thread that sends them as jobs.

No future stays pending: an error of a call, a job, the grid or a thread becomes the exception of the futures
concerned.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, FINISHED, PENDING, RUNNING
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._batch import Batch
from ._collector import Collector
from ._fork import remember
from .calls import call_labels, give
from .client import Client, job_path, job_request, new_job_id
from .errors import BrokenGridExecutor, DivvyError, GridUnreachable, PayloadTooLarge, Unavailable

if TYPE_CHECKING:
    from . import models

log = logging.getLogger("divvy.executor")

#: Time that the first call of a job waits for others, in seconds.
COALESCE_SECONDS = 0.002

#: Calls that are sent without waiting for more.
FULL_ENOUGH = 50

#: The most tasks of one job, and the most bytes unless one call alone is longer: a page or two of outcomes.
MAX_JOB_TASKS = 2000
MAX_JOB_BYTES = 8 * 1024 * 1024

#: Seconds after which an idle thread ends.
LINGER_SECONDS = 1.0


class GridFuture(Future[Any]):
    """A future whose ``cancel`` reaches the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.on_cancel: Callable[[], None] | None = None

    def cancel(self) -> bool:
        """Cancels the call unless it runs or is done; the grid stops it if it runs and that is not known here."""
        if not super().cancel():
            return False
        with self._condition:
            is_first = self._state == CANCELLED
            if is_first:
                self.set_running_or_notify_cancel()
        if is_first and self.on_cancel is not None:
            self.on_cancel()
        return True

    def note_running(self) -> None:
        """The grid says that the call runs."""
        with self._condition:
            if self._state == PENDING:
                self.set_running_or_notify_cancel()

    def abandon(self, error: BaseException) -> None:
        """Ends the future with an error in a forked child, without its callbacks, which are the parent's."""
        self._condition = threading.Condition()
        if self._state in (PENDING, RUNNING):
            self._exception, self._state = error, FINISHED


class Call:
    """A pickled call and its future."""

    __slots__ = ("future", "is_chunk", "payload")

    def __init__(self, payload: str, future: GridFuture, is_chunk: bool) -> None:
        self.payload = payload
        self.future = future
        self.is_chunk = is_chunk


@dataclass(frozen=True)
class JobOptions:
    """Options that all jobs of an executor share."""

    priority: int | None
    tags: Mapping[str, str]
    affinity: models.Affinity | None
    requires: models.Requirements | None
    max_attempts: int

    def head(self, *, is_chunk: bool) -> str:
        """A job's request as JSON, up to its list of payloads."""
        requires: dict[str, Any] = dict(self.requires or {})
        requires["labels"] = {**requires.get("labels", {}), **call_labels("chunk" if is_chunk else "single")}
        request = job_request(
            "tasks",
            {},
            priority=self.priority,
            tags=self.tags,
            affinity=self.affinity,
            requires=requires,
            max_attempts=self.max_attempts,
        )
        del request["params"]
        return f'{json.dumps(request)[:-1]},"params":{{"list":['


class Engine:
    """Sends calls as jobs; the collector settles their futures."""

    def __init__(self, client: Client, options: JobOptions, *, owns_client: bool) -> None:
        self._client = client
        self._heads = {is_chunk: options.head(is_chunk=is_chunk) for is_chunk in (False, True)}
        self._owns_client = owns_client
        self._changed = threading.Condition()
        self._queue: deque[Call] = deque()
        #: Calls that the sender has taken and the collector does not have yet.
        self._sending: list[Call] = []
        self._sender: threading.Thread | None = None
        #: Senders to wait for: one that has nothing to do any more is forgotten a moment before it ends.
        self._senders: list[threading.Thread] = []
        self._is_shut_down = False
        self._broken: BaseException | None = None
        self._collector = Collector(client, self.break_down, self._is_sending, self._close_client_when_done)
        remember(self)

    def after_fork(self) -> None:
        """Leaves the calls there are to the parent: their futures end with an error here. New calls are taken."""
        futures = [call.future for call in (*self._sending, *self._queue)] + self._collector.after_fork()
        self._changed, self._sender, self._senders = threading.Condition(), None, []
        self._queue, self._sending = deque(), []
        for future in futures:
            future.abandon(BrokenGridExecutor("the call was submitted by the process that this one was forked from"))

    def check_open(self) -> None:
        """Raises ``BrokenGridExecutor`` or ``RuntimeError`` where no more calls are taken."""
        if self._broken is not None:
            raise BrokenGridExecutor(str(self._broken)) from self._broken
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not threading.main_thread().is_alive():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def enqueue(self, calls: Iterable[Call]) -> None:
        """Queues calls, in their order."""
        with self._changed:
            self.check_open()
            if self._sender is None:
                sender = threading.Thread(target=self._guarded, name="divvy-sender")
                # Before the calls are queued: without a thread, which raises here, nothing would send them.
                sender.start()
                self._sender = sender
                self._senders = [*(each for each in self._senders if each.is_alive()), sender]
            self._collector.start()
            before = len(self._queue)
            self._queue.extend(calls)
            # The sender waits for the first call, and then for enough of them: to wake for each would slow both.
            if before == 0 or before < FULL_ENOUGH <= len(self._queue):
                self._changed.notify_all()

    def shut_down(self, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; with ``cancel_futures`` cancels those that do not run."""
        with self._changed:
            self._is_shut_down = True
            waiting = [*self._sending, *self._queue] if cancel_futures else []
            self._changed.notify_all()
        for call in waiting:
            call.future.cancel()
        if cancel_futures:
            self._collector.cancel_waiting()
        self._collector.shut_down()
        self._close_client_when_done()

    def kill(self) -> None:
        """Cancels the calls that wait, ends the futures of the others, and has the grid kill what runs."""
        self.shut_down(cancel_futures=True)
        self.break_down(BrokenGridExecutor("the calls of this executor were killed"))

    def join(self) -> None:
        """Waits until every call has an outcome and the threads have ended."""
        for sender in self._senders:
            if sender is not threading.current_thread():
                sender.join()
        self._collector.join()

    def break_down(self, error: BaseException) -> None:
        """Ends all futures with ``BrokenGridExecutor``; no more calls are taken."""
        with self._changed:
            self._broken = self._broken or error
            left, self._queue = [*self._sending, *self._queue], deque()
            self._changed.notify_all()
        self._collector.break_down(error)
        for call in left:
            give(call.future, None, broken_by(error))

    def _is_sending(self) -> bool:
        return self._sender is not None

    def _close_client_when_done(self) -> None:
        """Closes the executor's own client when it is shut down and nothing is left."""
        if self._owns_client and self._is_shut_down and self._sender is None and self._collector.is_idle():
            self._client.close()

    def _guarded(self) -> None:
        try:
            self._send_all()
        except BaseException as error:
            log.exception("the executor's sender died")
            self._sender = None
            self.break_down(error)

    def _send_all(self) -> None:
        while (group := self._next_group()) is not None:
            self._send_or_fail(group)
            # Each call is the collector's or has ended: its result is not kept alive here.
            with self._changed:
                self._sending = []
            del group

    def _next_group(self) -> list[Call] | None:
        """Calls for one job, or None when the thread has ended."""
        with self._changed:
            linger_until = time.monotonic() + LINGER_SECONDS
            while not self._queue:
                left = linger_until - time.monotonic()
                if self._is_shut_down or left <= 0 or not threading.main_thread().is_alive():
                    self._sender = None
                    return None
                self._changed.wait(min(left, 0.1))
            coalesce_until = time.monotonic() + COALESCE_SECONDS
            while len(self._queue) < FULL_ENOUGH and not self._is_shut_down:
                left = coalesce_until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._sending = self._take_group()
            return self._sending

    def _take_group(self) -> list[Call]:
        group: list[Call] = []
        size = 0
        while self._queue and len(group) < MAX_JOB_TASKS:
            call = self._queue[0]
            fits = size + len(call.payload) <= MAX_JOB_BYTES and (not group or group[0].is_chunk == call.is_chunk)
            if group and not fits:
                break
            self._queue.popleft()
            if not call.future.cancelled():
                group.append(call)
                size += len(call.payload)
        return group

    def _send_or_fail(self, group: list[Call]) -> None:
        """Sends calls. An error becomes the exception of their futures."""
        try:
            self._send(group)
        except BaseException as error:
            for call in group:
                give(call.future, None, error if isinstance(error, DivvyError) else broken_by(error))
            if not isinstance(error, DivvyError):
                raise

    def _send(self, group: list[Call]) -> None:
        if not group:
            return
        id = str(new_job_id())
        body = f"{self._heads[group[0].is_chunk]}{','.join(call.payload for call in group)}]}}}}"
        try:
            self._put(id, body.encode())
        except PayloadTooLarge:
            if len(group) == 1:
                raise
            # The grid takes shorter jobs than this executor makes. A call that is too long by itself fails alone.
            half = len(group) // 2
            for part in (group[:half], group[half:]):
                self._send_or_fail(part)
            return
        batch = Batch(id, [call.future for call in group])
        if batch.are_all_canceled():
            # Canceled at once: the collector may be busy with other jobs, and a worker would begin the calls meanwhile.
            self._collector.cancel(batch)
            return
        self._collector.add(batch)
        if self._broken is not None:
            # The executor has broken meanwhile, and its futures have ended.
            self._collector.break_down(self._broken)

    def _put(self, id: str, body: bytes) -> None:
        """Submits a job, over a restart of the grid and while its disk is full."""
        deadline = time.monotonic() + self._client.transport.retry_for
        while True:
            try:
                self._client.transport.request("PUT", job_path(id), body).checked()
                return
            except Unavailable as error:
                if time.monotonic() >= deadline:
                    raise GridUnreachable(f"the grid takes no jobs: {error}") from error
                time.sleep(0.5)


def broken_by(error: BaseException) -> BrokenGridExecutor:
    """The exception of futures that end with their executor."""
    if isinstance(error, BrokenGridExecutor):
        return error
    broken = BrokenGridExecutor(f"the executor is broken: {type(error).__name__}: {error}")
    broken.__cause__ = error
    return broken
