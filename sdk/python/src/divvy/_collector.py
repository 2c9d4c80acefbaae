"""Collects outcomes: one thread that looks at the jobs of an executor and settles their futures.

The thread looks at a job at its events, and between them less and less often. A look reads pages of tasks from the
first open task to the first that has not begun, since tasks mostly begin in their order. Where nothing is new there for
a while, a look reads some tasks beyond.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ._batch import FIRST_PAUSE, LONGEST_BUSY_PAUSE, Batch
from ._cancel import Cancel, Cancels
from .calls import breaks_executor, failed_task, give, settle
from .client import Client, job_path
from .errors import Conflict, DivvyError, GridError, JobCanceled, JobLost, NotFound, TaskFailed, Unavailable
from .events import END_TYPES
from .models import JobEvent

if TYPE_CHECKING:
    from ._engine import GridFuture

log = logging.getLogger("divvy.executor")

#: The first look at a job comes after this share of the time that the last job took for as many tasks, at most after
#: ``LONGEST_FIRST_PAUSE``, in seconds.
USELESS_BEFORE = 0.7
LONGEST_FIRST_PAUSE = 0.012

#: Seconds between requests for the state of a job whose tasks do not change: an event may have been missed.
STATE_INTERVAL = 2.0

#: A page has as many tasks as fit this size, by the sizes of earlier tasks.
PAGE_BYTES = 2 * 1024 * 1024
FIRST_PAGE, LARGEST_PAGE = 100, 1000

#: Ranges of open tasks that a look reads of the first ones, and of those beyond.
MAX_RANGES = 16

#: The most tasks of one request to skip; the grid takes no more.
MAX_SKIPPED = 1000

#: Seconds after which an idle thread ends.
LINGER_SECONDS = 1.0


class Collector:
    """Settles futures. ``is_fed`` says whether more jobs may come; ``on_end`` is called when the thread ends."""

    def __init__(
        self,
        client: Client,
        on_broken: Callable[[BaseException], None],
        is_fed: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        self._client = client
        self._on_broken = on_broken
        self._is_fed = is_fed
        self._on_end = on_end
        self._changed = threading.Condition()
        self._batches: dict[str, Batch] = {}
        self._cancels = Cancels(self._changed)
        self._thread: threading.Thread | None = None
        #: Threads to wait for: one that has nothing to do any more is forgotten a moment before it ends.
        self._threads: list[threading.Thread] = []
        self._is_shut_down = False
        self._page = FIRST_PAGE
        self._seconds_per_task = 0.0

    def start(self) -> None:
        """Starts the thread unless it runs."""
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._guarded, name="divvy-collector")
                thread.start()
                self._thread = thread
                self._threads = [*(each for each in self._threads if each.is_alive()), thread]

    def after_fork(self) -> list[GridFuture]:
        """Leaves the jobs to the parent process. Returns the futures of their tasks."""
        futures = [future for batch in self._batches.values() for future in batch.open.values()]
        self._changed, self._thread, self._batches = threading.Condition(), None, {}
        self._cancels, self._threads = Cancels(self._changed), []
        return futures

    def add(self, batch: Batch) -> None:
        """Takes a job that was submitted."""
        # Before the thread knows the job, whose end takes the watcher away.
        self._client.hub.add(batch.id, self._watcher(batch))
        with self._changed:
            expected = USELESS_BEFORE * self._seconds_per_task * batch.total
            batch.due_at = batch.added_at + max(FIRST_PAUSE, min(expected, LONGEST_FIRST_PAUSE))
            self._batches[batch.id] = batch
            self._changed.notify_all()
        for future in list(batch.open.values()):
            future.on_cancel = lambda: self._note_cancel(batch)
        if any(future.cancelled() for future in list(batch.open.values())):
            self._note_cancel(batch)

    def is_idle(self) -> bool:
        """Whether no job is open and no cancel waits."""
        with self._changed:
            return not self._batches and not self._cancels.times()

    def cancel_waiting(self) -> None:
        """Cancels every future that does not run."""
        with self._changed:
            futures = [future for batch in self._batches.values() for future in list(batch.open.values())]
        for future in futures:
            future.cancel()

    def shut_down(self) -> None:
        """Ends the thread as soon as no job is open and no cancel waits."""
        with self._changed:
            self._is_shut_down = True
            self._changed.notify_all()

    def join(self) -> None:
        """Waits until the thread has ended."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def cancel(self, batch: Batch) -> None:
        """Cancels a job. If the grid does not take the cancel now, the thread tries again."""
        cancel = Cancel(batch.id, self._client)
        if cancel.is_settled():
            return
        with self._changed:
            if self._thread is not None:
                self._cancels.keep(cancel)
                self._changed.notify_all()
                return
        cancel.give_up("the grid did not take the cancel, and the executor has ended")

    def break_down(self, error: BaseException) -> None:
        """Ends all futures that are left, and cancels their jobs."""
        from ._engine import broken_by

        with self._changed:
            batches, self._batches = list(self._batches.values()), {}
            has_thread = self._thread is not None
            if has_thread:
                # At once: a thread that finds nothing left to do ends, and the executor's client is closed.
                for batch in batches:
                    self._cancels.keep(Cancel(batch.id, self._client))
            self._changed.notify_all()
        for batch in batches:
            for future in list(batch.open.values()):
                give(future, None, broken_by(error))
            self._let_go(batch)
            if not has_thread:
                self.cancel(batch)

    def _watcher(self, batch: Batch) -> Callable[[JobEvent | None], None]:
        def watcher(event: JobEvent | None) -> None:
            with self._changed:
                if event is None:
                    batch.state_known_at = 0.0
                elif event["type"] in END_TYPES:
                    batch.is_over = True
                batch.pause = FIRST_PAUSE
                batch.due_at = 0.0
                self._changed.notify_all()

        batch.watcher = watcher
        return watcher

    def _note_cancel(self, batch: Batch) -> None:
        with self._changed:
            batch.has_cancels = True
            batch.due_at = 0.0
            self._changed.notify_all()

    def _guarded(self) -> None:
        try:
            self._collect_all()
        except BaseException as error:
            log.exception("the executor's collector died")
            with self._changed:
                self._thread = None
            self._cancels.give_up(error)
            self._on_broken(error)

    def _collect_all(self) -> None:
        while (due := self._next_due()) is not None:
            self._cancels.try_due()
            for batch in due:
                if not self._look_or_fail(batch):
                    break
        self._on_end()

    def _next_due(self) -> list[Batch] | None:
        """The jobs to look at now; an empty list if only a cancel is due, None if the thread has ended."""
        linger_until = time.monotonic() + LINGER_SECONDS
        with self._changed:
            while True:
                now = time.monotonic()
                if times := [*(batch.due_at for batch in self._batches.values()), *self._cancels.times()]:
                    wait = min(times) - now
                    if wait <= 0.0:
                        return [batch for batch in self._batches.values() if batch.due_at <= now]
                elif not self._is_fed() and (
                    self._is_shut_down or now >= linger_until or not threading.main_thread().is_alive()
                ):
                    self._thread = None
                    return None
                else:
                    wait = 0.05
                self._changed.wait(wait)

    def _look_or_fail(self, batch: Batch) -> bool:
        """Looks at a job. False if all jobs have ended with an error."""
        try:
            self._look(batch)
            batch.refused_since = None
        except DivvyError as error:
            if isinstance(error, NotFound) and error.is_problem:
                self._end(batch, JobLost(batch.id, "the grid does not know it any more"))
                return True
            if isinstance(error, GridError):
                self._see_refusal(batch, error)
                return True
            # The request was repeated for long enough, and no other job can be read either.
            with self._changed:
                batches = list(self._batches.values())
            for each in batches:
                self._end(each, error)
            return False
        return True

    def _see_refusal(self, batch: Batch, error: GridError) -> None:
        """Ends a job's futures where the grid refuses for as long as it is waited for while it is away.

        A refusal may pass, such as that of a token which the grid reads again, or of a proxy before the grid.
        """
        now = time.monotonic()
        since = batch.refused_since = now if batch.refused_since is None else batch.refused_since
        # `Unavailable` was waited for in its request.
        if isinstance(error, Unavailable) or now - since >= self._client.transport.retry_for:
            return self._end(batch, error)
        batch.pace(is_news=False, jobs=len(self._batches))
        return None

    def _look(self, batch: Batch) -> None:
        is_over = batch.is_over
        if batch.has_cancels and not is_over:
            self._bring_cancels(batch)
        is_news = bool(batch.open) and self._read(batch, is_over)
        if batch.has_late_cancels and not is_over and batch.are_all_canceled():
            self._cancel_whole(batch)
        if batch.open and not is_over and not is_news and time.monotonic() - batch.state_known_at > STATE_INTERVAL:
            self._see_state(batch)
        if is_over and batch.open:
            return self._end_over(batch)
        if not batch.open:
            self._seconds_per_task = (time.monotonic() - batch.added_at) / batch.total
            return self._forget(batch)
        if not (batch.is_over and not is_over):
            batch.pace(is_news=is_news, jobs=len(self._batches))
        return None

    def _read(self, batch: Batch, is_over: bool) -> bool:
        """Reads open tasks: all if the job is over. Whether there was news."""
        is_news, end = self._read_from(batch, 0, is_over)
        if end is None or is_news or batch.pause < LONGEST_BUSY_PAUSE:
            return is_news
        # Such as beyond many that take long, or one that waits again after its worker was lost.
        is_news, looked_to = self._read_from(batch, max(end, batch.looked_to), is_over)
        batch.looked_to = looked_to or 0
        return is_news

    def _read_from(self, batch: Batch, first: int, is_over: bool) -> tuple[bool, int | None]:
        """Reads open tasks from an index on, as ``_read`` does. Whether there was news, and where the rest begins."""
        is_news = False
        for count, (start, end) in enumerate(batch.ranges(first)):
            if count == MAX_RANGES and not is_over:
                return is_news, start
            token = start
            while token < end:
                limit = min(self._page, end - token)
                path = job_path(batch.id, f"/tasks?page_token={token}&limit={limit}")
                response = self._client.transport.request("GET", path).checked()
                tasks = response.json()["tasks"]
                if not tasks:
                    break
                self._learn_page(len(response.body), len(tasks))
                for task in tasks:
                    is_news |= self._note(batch, task)
                token = tasks[-1]["index"] + 1
                if tasks[-1]["state"] == "pending" and not is_over:
                    return is_news, token
        return is_news, None

    def _learn_page(self, size: int, tasks: int) -> None:
        self._page = max(1, min(LARGEST_PAGE, self._page * 2, PAGE_BYTES * tasks // max(size, 1)))

    def _note(self, batch: Batch, task: dict[str, Any]) -> bool:
        """Settles the future of a task that is over. Whether that is news."""
        future = batch.open.get(task["index"])
        state = task["state"]
        if future is None:
            return False
        if state == "pending":
            # It may run no more, also where it has just come back from a worker that was lost.
            if future.cancelled():
                batch.has_cancels = True
            return False
        if state == "running":
            future.note_running()
            return False
        del batch.open[task["index"]]
        if state == "succeeded":
            outcome = task.get("result")
            settle(future, outcome)
            if breaks_executor(outcome) and not future.cancelled() and (error := future.exception()) is not None:
                self._on_broken(error)
        else:
            give(future, None, failed_task(task.get("last_error") or "the grid gave it up"))
        return True

    def _see_state(self, batch: Batch) -> None:
        job = self._client.show(batch.id)
        batch.state_known_at = time.monotonic()
        if job["state"] in END_TYPES:
            batch.is_over = True
            batch.due_at = 0.0
        elif (notice := job.get("notice")) and not batch.has_noticed:
            batch.has_noticed = True
            log.warning("job %s waits: %s", batch.id, notice)

    def _bring_cancels(self, batch: Batch) -> None:
        """Cancels the job when the futures of all open tasks are canceled, else skips those that have not begun."""
        with self._changed:
            batch.has_cancels = False
        canceled = [index for index, future in batch.open.items() if future.cancelled()]
        if len(canceled) == len(batch.open):
            return self._cancel_whole(batch)
        for first in range(0, len(canceled), MAX_SKIPPED):
            for index in self._skip(batch, canceled[first : first + MAX_SKIPPED]):
                batch.open.pop(index, None)
        batch.has_late_cancels = any(index in batch.open for index in canceled)
        return None

    def _skip(self, batch: Batch, tasks: Sequence[int]) -> list[int]:
        """Skips tasks that have not begun. Returns them."""
        try:
            return self._client.skip(batch.id, tasks)
        except Unavailable:
            # Such as while its disk is full.
            batch.has_cancels = True
        except GridError as error:
            # The job is over, or the grid cannot skip: outcomes of these tasks are dropped.
            if not isinstance(error, (Conflict, NotFound)):
                log.info("canceled calls of job %s may run: %s", batch.id, error)
        return []

    def _cancel_whole(self, batch: Batch) -> None:
        self.cancel(batch)
        batch.open.clear()

    def _end_over(self, batch: Batch) -> None:
        """Ends futures whose job is over without an outcome for them."""
        job = self._client.show(batch.id)
        if job["state"] not in END_TYPES:
            # Another client has retried the job.
            batch.is_over = False
            return None
        if job["state"] == "canceled":
            return self._end(batch, JobCanceled(batch.id, "it was canceled"))
        reason = job.get("error") or job["state"]
        return self._end(batch, TaskFailed(f"job {batch.id} is over without this task: {reason}"))

    def _end(self, batch: Batch, error: BaseException) -> None:
        for future in list(batch.open.values()):
            give(future, None, error)
        batch.open.clear()
        self._forget(batch)

    def _forget(self, batch: Batch) -> None:
        with self._changed:
            self._batches.pop(batch.id, None)
        self._let_go(batch)

    def _let_go(self, batch: Batch) -> None:
        if batch.watcher is not None:
            self._client.hub.remove(batch.id, batch.watcher)
