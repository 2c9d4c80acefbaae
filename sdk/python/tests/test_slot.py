"""Slots that are to be killed while they have no process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

import pytest

from divvy.worker.claims import Lease, Source
from divvy.worker.service import run_tasks
from divvy.worker.slot import Slot, SlotEnded, SlotOptions

from .helpers import DEADLINE


class Starting:
    """In place of a process and of what makes it: its start takes until it ``may_start``."""

    pid = None
    exitcode: int | None = None

    def __init__(self) -> None:
        self.is_starting, self.may_start = threading.Event(), threading.Event()
        # The sentinel can be read when the other end is closed.
        self.sentinel, self._alive = os.pipe()
        self._end = -1

    def Pipe(self) -> tuple[Connection, Connection]:
        ours, theirs = multiprocessing.Pipe()
        # As a process has it.
        self._end = os.dup(theirs.fileno())
        return ours, theirs

    def Process(self, **_: object) -> Starting:
        return self

    def start(self) -> None:
        self.is_starting.set()
        assert self.may_start.wait(DEADLINE)

    def kill(self) -> None:
        if self.exitcode is None:
            self.exitcode = -signal.SIGKILL
            os.close(self._alive)
            os.close(self._end)

    def join(self, timeout: float) -> None:
        """It has ended, or does not."""

    def close(self) -> None:
        os.close(self.sentinel)


def test_a_slot_whose_process_starts_is_killed_without_waiting_for_it() -> None:
    process = Starting()
    context: Any = process
    watcher: Any = None
    slot = Slot(context, SlotOptions(), watcher)
    ends: list[SlotEnded] = []

    def start() -> None:
        with pytest.raises(SlotEnded) as ended:
            slot.start()
        ends.append(ended.value)

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    assert process.is_starting.wait(DEADLINE)
    killing = threading.Thread(target=slot.kill, daemon=True)
    killing.start()
    killing.join(DEADLINE / 2)
    assert not killing.is_alive()
    process.may_start.set()
    starting.join(DEADLINE)
    assert "SIGKILL" in str(ends[0])
    assert slot.forgive()


def test_a_lease_that_is_lost_while_its_slot_has_no_process_is_not_begun() -> None:
    lease = Lease("attempt", "job", [{"index": 0, "payload": {}}], 1.0, Source("one", {}, {}, is_chunks=False))

    class Restarting:
        """In place of a slot."""

        def restart_for(self, _session: object) -> None:
            lease.is_lost = True

        def send(self, _payloads: object) -> None:
            raise AssertionError("the call of a lost lease is sent")

    slot: Any = Restarting()
    run_tasks(slot, lease, [0], lambda: False)
    assert lease.outcomes == {}
