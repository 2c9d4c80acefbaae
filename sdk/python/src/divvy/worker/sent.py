"""The tasks of one message to a slot's process: their answers, and the return of tasks that wait behind a long one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from . import child
from .board import PATIENCE
from .claims import Lease
from .slot import Slot


class SentTasks:
    """Takes the answers in their order, which shortens ``pending``."""

    def __init__(
        self, slot: Slot, lease: Lease, pending: deque[int], put_back: Callable[[Lease, Sequence[int]], None]
    ) -> None:
        self._slot = slot
        self._lease = lease
        self._pending = pending
        self._put_back = put_back
        self._has_taken_back = False

    def receive(self, timeout: float | None) -> None:
        """Takes the next answer. Tasks that wait longer for it than ``PATIENCE`` are put back."""
        if not self._pending:
            # Only the answers to calls that were taken back are left.
            self._slot.receive(None)
            return
        until = None if timeout is None else time.monotonic() + timeout
        is_patient = timeout is None or timeout > PATIENCE
        if len(self._pending) > 1 and is_patient and self._slot.is_silent(PATIENCE):
            self._take_back()
        answer = self._slot.receive(None if until is None else until - time.monotonic())
        if answer == child.TAKEN_BACK:
            self._keep(0)
        else:
            note_answer(self._lease, self._pending.popleft(), answer)

    def _take_back(self) -> None:
        if not self._has_taken_back:
            self._slot.take_back()
            self._has_taken_back = True
        # The process looks for the request between two calls, after it has answered the first: where that answer is not
        # there yet, it will see the request before it begins another call.
        if self._slot.is_silent(0.0):
            self._keep(1)

    def _keep(self, count: int) -> None:
        """Puts the tasks back except the first ``count``."""
        rest = list(self._pending)[count:]
        while len(self._pending) > count:
            self._pending.pop()
        self._put_back(self._lease, rest)


def note_answer(lease: Lease, position: int, answer: str) -> None:
    """Keeps the process's answer to a task."""
    if answer.startswith(child.OUTCOME):
        lease.outcomes[position] = answer[1:]
    else:
        lease.failure = lease.failure or answer[1:]
