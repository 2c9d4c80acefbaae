"""The leases of a worker, and the slots that run them. All under one lock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .claims import Lease
from .slot import Slot

#: Running time of one claim of chunks for each slot, in seconds.
LEASE_TARGET = 0.05

#: Assumed running time of a chunk before any was run, in seconds.
FIRST_GUESS = 0.005

#: The most chunks of one claim, and the bytes that their outcomes may be expected to take.
MAX_CLAIM = 200
MAX_EXPECTED_BYTES = 8 * 1024 * 1024

#: Chunks are fetched ahead only while each takes less than this, in seconds.
QUICK = 0.1

#: Seconds that a lease waits while every slot runs longer calls, before it goes back to other workers.
PATIENCE = 5.0

#: Seconds between two claims of a single call while chunks keep the slots busy. After a claim that finds one the next
#: comes when a slot begins chunks again: calls and chunks take turns.
SINGLES_INTERVAL = 0.1

#: Seconds after which a worker claims although it wants nothing. The grid forgets a name that has held and claimed
#: nothing for five minutes, and frees the name of a drained worker that has not claimed for 90 s.
PRESENCE_INTERVAL = 60.0

#: Weight of the newest lease in the expected running time of a chunk.
NEWEST = 0.5


class Board:
    """Ready tasks and running ones. A lease's tasks are shared by all slots."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._changed = threading.Condition()
        self._ready: deque[tuple[Lease, deque[int]]] = deque()
        self._open: dict[str, Lease] = {}
        self._running: dict[Slot, Lease] = {}
        #: The attempts whose rest is on its way back to the grid.
        self._dividing: set[str] = set()
        self._idle = 0
        self._taken_at = time.monotonic()
        self._chunks_taken_at = 0.0
        self._singles_due_at = 0.0
        self._is_draining = False
        self._is_given_up = False
        self._seconds = FIRST_GUESS
        self._bytes = 0.0

    def put(self, lease: Lease) -> bool:
        """Takes a lease to run; False while draining. Single calls go before chunks."""
        with self._changed:
            if self._is_draining:
                return False
            self._open[lease.attempt] = lease
            entry = (lease, deque(range(len(lease.tasks))))
            if lease.source.is_chunks:
                self._ready.append(entry)
            else:
                self._ready.appendleft(entry)
                self._singles_due_at = time.monotonic()
            self._changed.notify_all()
            return True

    def take(self, slot: Slot) -> tuple[Lease, list[int]] | None:
        """The next tasks of one lease for a slot, waiting for some; None when the worker drains and nothing is left.

        None comes only when the other slots are done: the process that slots are forked from ends with the thread that
        started it, which is a slot's thread where an earlier process was killed.
        """
        with self._changed:
            self._running.pop(slot, None)
            self._idle += 1
            self._changed.notify_all()
            while not self._ready and not self._is_done():
                self._changed.wait()
            self._idle -= 1
            if not self._ready:
                return None
            lease, positions = self._ready[0]
            # Half of an even share: slots that are done early share the rest.
            count = -(-len(positions) // (2 * self._slots))
            taken = [positions.popleft() for _ in range(count)]
            if not positions:
                self._ready.popleft()
            lease.is_begun = True
            self._running[slot] = lease
            self._taken_at = time.monotonic()
            if lease.source.is_chunks:
                self._chunks_taken_at = self._taken_at
            return lease, taken

    def done(self, lease: Lease) -> None:
        """Forgets a lease that was reported or dropped."""
        with self._changed:
            self._open.pop(lease.attempt, None)
            self._changed.notify_all()

    def is_last_of(self, slot: Slot, lease: Lease) -> bool:
        """Ends a slot's run. True if no task of the lease is ready or runs: then the slot's thread reports the lease.

        A lease whose rest is on its way back is reported after the answer to that.
        """
        with self._changed:
            self._running.pop(slot, None)
            return not self._is_in_hand(lease)

    def learn(self, lease: Lease) -> None:
        """Learns the running time and the size of an outcome from a lease of chunks."""
        if not lease.outcomes:
            return
        slots = min(self._slots, len(lease.outcomes))
        seconds = (time.monotonic() - lease.claimed_at) * slots / len(lease.outcomes)
        size = sum(map(len, lease.outcomes.values())) / len(lease.outcomes)
        with self._changed:
            self._seconds += NEWEST * (seconds - self._seconds)
            # The largest size lately: a claim should be too small rather than too large to report.
            self._bytes = max(size, self._bytes / 2)

    def wanted_chunks(self) -> int | None:
        """Waits until the worker wants chunks, and returns their number.

        0 if it wants none within ``PRESENCE_INTERVAL``; None when it drains.
        """
        return self._wanted(self._chunks_now)

    def _chunks_now(self) -> int:
        """The number of chunks that the worker wants now."""
        ready = self._ready_tasks()
        is_quick = self._seconds < QUICK
        is_ahead = is_quick and ready < self._slots and not self._is_stuck()
        if not is_ahead and (self._idle == 0 or ready > 0):
            return 0
        if not is_quick:
            return 1
        most = LEASE_TARGET * self._slots / max(self._seconds, 1e-6)
        most = min(most, MAX_EXPECTED_BYTES / max(self._bytes, 1.0))
        return max(1, min(MAX_CLAIM, int(most)))

    def _is_done(self) -> bool:
        """Whether the slots' threads may end."""
        return self._is_draining and (self._is_given_up or not self._running)

    def _is_stuck(self) -> bool:
        """Whether every slot runs calls, and none has begun any for ``PATIENCE``."""
        return len(self._running) == self._slots and time.monotonic() - self._taken_at >= PATIENCE

    def wanted_singles(self) -> int | None:
        """Waits as ``wanted_chunks`` does, until a slot is idle with nothing ready for it, and returns 1.

        Never more: the grid counts an attempt's outcomes only together, and a call may wait for another's. Chunks that
        are fetched ahead leave no slot idle: 0 also where slots begin chunks, for a call that no idle worker has taken.
        """
        wanted = self._wanted(self._singles_now, self._is_turn_of_singles)
        with self._changed:
            self._singles_due_at = time.monotonic() + SINGLES_INTERVAL
        return wanted

    def _singles_now(self) -> int:
        return int(self._idle > self._ready_tasks())

    def _is_turn_of_singles(self) -> bool:
        """Whether a slot has begun chunks since a claim of a single call was due, and no such call is ready."""
        return self._chunks_taken_at > self._singles_due_at and all(one.source.is_chunks for one, _ in self._ready)

    def has_ready_chunks(self) -> bool:
        """Whether chunks wait for a slot."""
        with self._changed:
            return any(lease.source.is_chunks for lease, _ in self._ready)

    def _ready_tasks(self) -> int:
        return sum(len(positions) for _, positions in self._ready)

    def _wanted(self, count_now: Callable[[], int], is_turn: Callable[[], bool] = lambda: False) -> int | None:
        until = time.monotonic() + PRESENCE_INTERVAL
        with self._changed:
            while not self._is_draining:
                if (wanted := count_now()) > 0:
                    return wanted
                if (left := until - time.monotonic()) <= 0 or is_turn():
                    return 0
                self._changed.wait(left)
            return None

    def open_leases(self) -> list[Lease]:
        """All leases that the worker holds."""
        with self._changed:
            return list(self._open.values())

    def take_waiting(self) -> list[Lease]:
        """Removes the leases that have waited for ``PATIENCE`` behind longer calls: other workers may have slots."""
        with self._changed:
            if not self._is_stuck():
                return []
            until = time.monotonic() - PATIENCE
            return self._forget_unbegun(lambda lease: lease.claimed_at <= until)

    def take_rests(self) -> list[tuple[Lease, int]]:
        """Takes the tasks that wait behind long calls off the begun leases: other workers may have free slots.

        With each lease comes the number of tasks that it keeps. ``divided`` takes the grid's answer.
        """
        with self._changed:
            if self._is_draining or not self._is_stuck():
                return []
            rests: list[tuple[Lease, int]] = []
            for lease, tasks in self._ready:
                if not lease.is_begun or lease.is_whole or lease.attempt in self._dividing:
                    continue
                # A lease keeps its first tasks, at least one. Its last tasks may have begun before others.
                kept = len(lease.tasks)
                while kept > 1 and tasks and tasks[-1] == kept - 1:
                    kept = tasks.pop()
                if kept < len(lease.tasks):
                    rests.append((lease, kept))
            self._ready = deque(entry for entry in self._ready if entry[1])
            self._dividing.update(lease.attempt for lease, _ in rests)
            return rests

    def divided(self, lease: Lease, kept: int, is_cut: bool) -> bool:
        """Notes whether the rest of a lease is back at the grid. If not, the rest is ready again.

        True if no task of the lease is ready or runs: then the caller reports it.
        """
        with self._changed:
            self._dividing.discard(lease.attempt)
            if not is_cut:
                lease.is_whole = True
                if not self._is_draining:
                    self._make_ready(lease, range(kept, len(lease.tasks)))
            return not self._is_in_hand(lease)

    def put_back(self, lease: Lease, positions: Sequence[int]) -> None:
        """Takes tasks back from a slot that has not begun them."""
        with self._changed:
            self._make_ready(lease, positions)

    def _make_ready(self, lease: Lease, positions: Sequence[int]) -> None:
        if lease.is_lost or lease.is_given_up or self._is_given_up:
            return
        ready = next((tasks for one, tasks in self._ready if one is lease), None)
        if ready is None:
            ready = deque()
            self._ready.append((lease, ready))
        in_order = sorted((*ready, *positions))
        ready.clear()
        ready.extend(in_order)
        self._changed.notify_all()

    def lose(self, lease: Lease) -> None:
        """Drops a lease that the grid has ended: starts no more of its tasks, and kills those that run."""
        with self._changed:
            lease.is_lost = True
            self._forget_ready([lease])
            self._open.pop(lease.attempt, None)
            for slot, running in self._running.items():
                if running is lease:
                    slot.kill()

    def give_up(self, lease: Lease) -> None:
        """Starts no more tasks of a lease, which goes back to the grid."""
        with self._changed:
            lease.is_given_up = True
            self._forget_ready([lease])

    def drain(self) -> list[Lease]:
        """Takes no more leases; returns those that were not begun."""
        with self._changed:
            self._is_draining = True
            unbegun = self._forget_unbegun(lambda _: True)
            self._changed.notify_all()
            return unbegun

    def kill_all(self) -> list[Lease]:
        """Kills the running calls; returns the leases that no slot will report."""
        with self._changed:
            self._is_given_up = True
            left = [lease for lease, _ in self._ready if lease not in self._running.values()]
            self._ready.clear()
            for lease in left:
                self._open.pop(lease.attempt, None)
            for slot in self._running:
                slot.kill()
            self._changed.notify_all()
            return left

    def _is_in_hand(self, lease: Lease) -> bool:
        """Whether a task of the lease is ready or runs, or its rest is on its way back."""
        is_ready = any(one is lease for one, _ in self._ready)
        return is_ready or lease in self._running.values() or lease.attempt in self._dividing

    def _forget_unbegun(self, is_meant: Callable[[Lease], bool]) -> list[Lease]:
        unbegun = [lease for lease in self._open.values() if not lease.is_begun and is_meant(lease)]
        self._forget_ready(unbegun)
        for lease in unbegun:
            del self._open[lease.attempt]
        return unbegun

    def _forget_ready(self, leases: Iterable[Lease]) -> None:
        gone = {lease.attempt for lease in leases}
        self._ready = deque(entry for entry in self._ready if entry[0].attempt not in gone)
