"""Calls that a slot's process was sent and that wait there behind a long one."""

from __future__ import annotations

import multiprocessing
import pickle
import select
import threading
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from divvy.worker import child, sent
from divvy.worker.claims import Lease, Source
from divvy.worker.service import run_tasks
from divvy.worker.slot import Slot, SlotOptions

from . import functions
from .helpers import DEADLINE


def lease(tasks: int) -> Lease:
    listed = [{"index": index, "payload": {}} for index in range(tasks)]
    return Lease("chunks", "job", listed, 1.0, Source("one", {}, {}, is_chunks=True))


class Threaded(Slot):
    """A slot whose process is a thread of this one."""

    def __init__(self) -> None:
        none: Any = None
        super().__init__(none, SlotOptions(), none)
        self._pipe, theirs = multiprocessing.Pipe()
        self._poll.register(self._pipe.fileno(), select.POLLIN)
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()

    def start(self) -> None:
        """The thread runs already."""

    def _serve(self, pipe: Connection) -> None:
        incoming = select.poll()
        incoming.register(pipe.fileno(), select.POLLIN)
        with pipe, suppress(EOFError):
            while True:
                child.serve(pipe, incoming, None)


def test_calls_behind_a_long_one_are_put_back_before_they_begin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate, names = tmp_path / "gate", [tmp_path / f"call-{number}" for number in range(3)]
    function = b64encode(pickle.dumps(functions.touch_and_wait)).decode()
    calls = [(str(name), str(awaited)) for name, awaited in zip(names, [gate, *names[1:]], strict=True)]
    chunks = lease(3)
    for task, call in zip(chunks.tasks, calls, strict=True):
        task["payload"] = {"function": function, "chunk": b64encode(pickle.dumps([call])).decode()}
    put_back: list[list[int]] = []

    def open_gate(_lease: Lease, positions: Sequence[int]) -> None:
        put_back.append(list(positions))
        gate.touch()

    slot = Threaded()
    monkeypatch.setattr(sent, "PATIENCE", 0.0)
    run_tasks(slot, chunks, [0, 1, 2], lambda: False, open_gate)
    assert put_back == [[1, 2]] and list(chunks.outcomes) == [0]
    assert not any(name.exists() for name in names[1:])
    # A request that comes after the last call has begun changes nothing.
    slot.take_back()
    monkeypatch.setattr(sent, "PATIENCE", DEADLINE)
    run_tasks(slot, chunks, [1, 2], lambda: False, open_gate)
    assert put_back == [[1, 2]] and list(chunks.outcomes) == [0, 1, 2]
    assert slot.stop() == "was not running"


def test_a_call_that_begins_before_it_is_taken_back_is_kept() -> None:
    chunks = lease(3)
    put_back: list[list[int]] = []
    silences, answers = iter([True, False, False]), iter(["=0", "=1", child.TAKEN_BACK])

    class Scripted:
        """In place of a slot: an answer comes with the request, and the next call has begun."""

        requests = 0

        def restart_for(self, _session: object) -> None:
            pass

        def send(self, payloads: list[object]) -> None:
            assert len(payloads) == 3

        def take_back(self) -> None:
            self.requests += 1

        def is_silent(self, _seconds: float) -> bool:
            return next(silences)

        def receive(self, _timeout: float | None) -> str:
            return next(answers)

    slot: Any = Scripted()
    run_tasks(slot, chunks, [0, 1, 2], lambda: False, lambda _, positions: put_back.append(list(positions)))
    assert (put_back, chunks.outcomes, slot.requests) == ([[2]], {0: "0", 1: "1"}, 1)
