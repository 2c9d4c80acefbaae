"""``Job``: a handle of a job on the grid."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._shown_job import ShownJob
from .errors import Conflict, GridUnreachable, JobCanceled, JobFailed, Unavailable
from .models import JobEvent
from .progress import Progress, progress_for

if TYPE_CHECKING:
    from . import models
    from .client import Client

#: Seconds between two requests for the state of an awaited job without events.
LOOK_INTERVAL = 10.0

#: Seconds between two requests while progress is shown.
SHOW_INTERVAL = 1.0

#: The shortest timeout of a request, in seconds, also where the caller waits for less.
SHORTEST_TIMEOUT = 1.0


class Job(ShownJob):
    """A job as it was when it was last looked at; ``refresh`` looks again."""

    def __init__(self, client: Client, shown: models.Job) -> None:
        self._client = client
        self._result: Any = None
        self._has_result = False
        super().__init__(shown)

    @property
    def result(self) -> Any:
        """The job's result, fetched once. ``JobFailed`` or ``JobCanceled`` if there is none, ``Conflict`` before."""
        if not self._has_result:
            if not self.is_over:
                self.refresh()
            if self.state == "canceled":
                raise JobCanceled(self.id, "it was canceled")
            if self.state == "failed":
                raise JobFailed(self.id, self._failure())
            self._result = self._client.result(self.id)
            self._has_result = True
        return self._result

    def refresh(self) -> Job:
        """Fetches the job anew."""
        return self._renewed(self._client.show(self.id))

    def wait(self, timeout: float | None = None, *, progress: bool | Progress | None = None) -> Job:
        """Waits for the job's end, also over restarts of the coordinator, and returns the job, whatever its ``state``.

        ``progress`` shows a bar on stderr or in a notebook; by default where there is a terminal or a notebook.
        Raises ``TimeoutError`` after ``timeout`` seconds.
        """
        until = float("inf") if timeout is None else time.monotonic() + timeout
        with progress_for(progress) as shown, self._client.hub.watching(self.id, timeout) as watch:
            while True:
                try:
                    self._refresh_until(until)
                except (GridUnreachable, Unavailable) as error:
                    if time.monotonic() < until:
                        raise
                    raise TimeoutError(f"job {self.id} was {self.state} when the grid was last there") from error
                shown.update(self.data)
                if self.is_over:
                    return self
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"job {self.id} is {self.state} after {timeout} s")
                interval = SHOW_INTERVAL if shown.is_visible else LOOK_INTERVAL
                watch.wait(min(interval, left), for_any=shown.is_visible)

    def events(self, *, after: int | None = None, follow: bool = True) -> Iterator[JobEvent]:
        """The job's events, from its submission to its end."""
        return self._client.events(self.id, after=after, follow=follow)

    def tasks(self, *, state: models.TaskState | None = None) -> Iterator[models.Task]:
        """The job's individual tasks; ``Conflict`` for kinds without, such as ``sum-of-primes``."""
        return self._client.tasks(self.id, state=state)

    def explain(self) -> list[str]:
        """The reasons for which the job's tasks wait, the most important first."""
        return self._client.explain(self.id)

    def cancel(self) -> Job:
        """Cancels the job. Idempotent."""
        return self._renewed(self._client.cancel(self.id).data)

    def pause(self) -> Job:
        """Starts no more tasks of the job. Idempotent."""
        return self._renewed(self._client.pause(self.id).data)

    def resume(self) -> Job:
        """Starts the tasks of the paused job again. Idempotent."""
        return self._renewed(self._client.resume(self.id).data)

    def retry(self) -> Job:
        """Runs the job's failed tasks again."""
        return self._renewed(self._client.retry(self.id).data)

    def _refresh_until(self, until: float) -> None:
        """Fetches the job anew, and repeats the request no longer than until then."""
        transport, left = self._client.transport, max(0.0, until - time.monotonic())
        timeout, retry_for = min(transport.timeout, max(left, SHORTEST_TIMEOUT)), min(transport.retry_for, left)
        self._renewed(self._client.show(self.id, timeout=timeout, retry_for=retry_for))

    def _failure(self) -> str:
        """The job's error, and that of its first failed task."""
        reason = self.error or "it failed"
        try:
            first = next(self._client.tasks(self.id, state="failed"), None)
        except Conflict:
            # Its tasks have no state of their own.
            return reason
        return reason if first is None else f"{reason}; task {first['index']}: {first.get('last_error')}"

    def _renewed(self, shown: models.Job) -> Job:
        self.data = shown
        return self
