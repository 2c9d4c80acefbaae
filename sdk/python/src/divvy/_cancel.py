"""The cancel of a whole job, which is tried again while the grid does not take it."""

from __future__ import annotations

import logging
import threading
import time

from .client import Client, job_path
from .errors import Conflict, DivvyError, NotFound

log = logging.getLogger("divvy.executor")

#: Seconds until a cancel is tried again: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class Cancel:
    """The cancel of a job. It is given up when the client's ``retry_for`` has passed."""

    def __init__(self, id: str, client: Client) -> None:
        self.id = id
        self._client = client
        self._last_at = time.monotonic() + client.transport.retry_for
        self._pause = FIRST_PAUSE
        self.due_at = 0.0

    def is_settled(self) -> bool:
        """Tries once. Returns whether no more tries follow: the job is canceled, over or gone, or the time is up."""
        transport = self._client.transport
        try:
            transport.request("POST", job_path(self.id, "/cancel"), is_safe=True, retry_for=0.0).checked()
        except DivvyError as error:
            if isinstance(error, Conflict) or (isinstance(error, NotFound) and error.is_problem):
                return True
            now = time.monotonic()
            if now >= self._last_at or transport.is_closed:
                self.give_up(error)
                return True
            self.due_at = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            return False
        return True

    def give_up(self, why: object) -> None:
        """Logs that the job goes on."""
        log.warning("job %s could not be canceled: %s", self.id, why)


class Cancels:
    """The cancels that the grid has not taken yet. Threads may share an instance.

    The lock is the collector's own, and reentrant: an executor that is collected as garbage asks whether the collector
    is idle, on whichever thread, also on one that is in a method here.
    """

    def __init__(self, lock: threading.Condition) -> None:
        self._lock = lock
        self._kept: dict[str, Cancel] = {}

    def keep(self, cancel: Cancel) -> None:
        """Keeps a cancel that was tried once."""
        with self._lock:
            self._kept[cancel.id] = cancel

    def times(self) -> list[float]:
        """The times at which cancels are to be tried again."""
        with self._lock:
            return [cancel.due_at for cancel in self._kept.values()]

    def try_due(self) -> None:
        """Tries cancels that are due, up to the first one that the grid does not take."""
        now = time.monotonic()
        with self._lock:
            due = [cancel for cancel in self._kept.values() if cancel.due_at <= now]
        for cancel in due:
            if not cancel.is_settled():
                return
            with self._lock:
                self._kept.pop(cancel.id, None)

    def give_up(self, why: object) -> None:
        """Gives all cancels up."""
        with self._lock:
            kept, self._kept = self._kept, {}
        for cancel in kept.values():
            cancel.give_up(why)
