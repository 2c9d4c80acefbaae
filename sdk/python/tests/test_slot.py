"""Slots without a process: those that are to be killed meanwhile, and those that get none."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from multiprocessing import process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from divvy.worker import service
from divvy.worker import slot as slots
from divvy.worker.claims import Lease, Source
from divvy.worker.service import Config, Worker, run_tasks
from divvy.worker.slot import Slot, SlotEnded, SlotNotStarted, SlotOptions

from .helpers import DEADLINE, answering, serving

#: Imports what the process that slots are forked from imports, with a module that makes errors of warnings, and warns
#: as the standard library's fork server does of a child that is not its own.
WARNED_FORK_SERVER = """
import importlib, sys, warnings
from multiprocessing import forkserver
from divvy.worker.slot import start_context
sys.path.insert(0, sys.argv[1])
start_context(["strict"])
for module in forkserver._forkserver._preload_modules:
    importlib.import_module(module)
warnings.warn("forkserver: waitpid returned unexpected pid 7")
"""

#: Two slots of a machine that can fork nothing while there is a file `full`: the first one's process is there before.
FULL_MACHINE = """
import os, sys, time
from multiprocessing import forkserver
from pathlib import Path
from divvy.worker import slot as slots
class Unwatched:
    def watch(self, group): pass
    def forget(self, group): pass
slots.START_PAUSES = (0.0, 0.0)
context, full = slots.start_context(["limited"]), Path("full")
first, second = (slots.Slot(context, slots.SlotOptions(), Unwatched()) for _ in range(2))
first.start()
files = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/fd")
before, pid = len(list(files.iterdir())), first.pid
full.touch()
for _ in range(3):
    try:
        second.start()
    except slots.SlotNotStarted:
        print("none", flush=True)
full.unlink()
second.start()
while len(list(files.iterdir())) > before + 1:
    time.sleep(0.01)
for each in (first, second):
    each.send([{"task": "missing"}])
    print(each.receive(None).partition(":")[0], flush=True)
print(first.pid == pid)
first.stop()
second.stop()
"""

#: Imported by the process that slots are forked from.
LIMITED = """
import errno, os
from pathlib import Path
real = os.fork
def fork():
    if Path("full").exists():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return real()
os.fork = fork
"""


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
    run_tasks(slot, lease, [0], lambda: False, lambda *_: None)
    assert lease.outcomes == {}


class Unforkable:
    """In place of a context and its process, where the machine can fork nothing."""

    pid = None

    def __init__(self) -> None:
        self.ends: list[Connection] = []

    def Pipe(self) -> tuple[Connection, Connection]:
        ours, theirs = multiprocessing.Pipe()
        self.ends += [ours, theirs]
        return ours, theirs

    def Process(self, **_: object) -> Unforkable:
        return self

    def start(self) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_a_slot_whose_process_cannot_be_forked_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "START_PAUSES", (0.0, 0.0))
    machine = Unforkable()
    context: Any = machine
    watcher: Any = None
    with pytest.raises(SlotNotStarted, match=os.strerror(errno.EAGAIN)):
        Slot(context, SlotOptions(), watcher).start()
    assert len(machine.ends) == 2 and all(end.closed for end in machine.ends)


class Listed(Unforkable):
    """In place of a context and its process, which the standard library lists when it starts."""

    children: Any = vars(process)["_children"]

    def start(self) -> None:
        self.children.add(self)


def test_the_thread_of_a_slot_alone_looks_for_the_end_of_its_process() -> None:
    listed = Listed()
    context: Any = listed
    watcher: Any = None
    _, pipe = Slot(context, SlotOptions(), watcher)._fork()
    pipe.close()
    is_listed = listed in listed.children
    listed.children.discard(listed)
    assert not is_listed


class Failing:
    """In place of a slot, at whose first call its worker drains and the slot fails."""

    pid = None

    def __init__(self, worker: Worker, error: Exception) -> None:
        self._worker = worker
        self._error = error
        self.starts = 0

    def restart_for(self, _session: object) -> None:
        self.starts += 1
        self._worker._stopping.set()
        assert self._worker._board.drain() == []
        raise self._error


def worker_at(url: str, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker without processes."""
    monkeypatch.setattr(service, "Watcher", lambda _context: None)
    return Worker(Config(url, "one", 1))


def lease_of(tasks: int, *, is_chunks: bool) -> Lease:
    listed = [{"index": index, "payload": {}} for index in range(tasks)]
    return Lease("attempt", "job", listed, 1.0, Source("one", {}, {}, is_chunks=is_chunks))


def test_a_lease_whose_slot_gets_no_process_goes_back_and_the_worker_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[str] = []
    with serving(lambda *_: True, answering(204), targets=targets) as (url, _):
        worker = worker_at(url, monkeypatch)
        failing = Failing(worker, SlotNotStarted("no process can be forked"))
        slot: Any = failing
        with closing(worker._coordinator):
            assert worker._board.put(lease_of(4, is_chunks=True))
            worker._run_slot(slot)
    assert targets == ["/v1/worker/tasks/attempt/release"]
    # The rest of the lease is not begun.
    assert failing.starts == 1
    assert worker._board.open_leases() == []


@pytest.mark.parametrize("error", [RuntimeError("a defect"), SlotNotStarted("a defect")])
def test_a_slots_thread_that_dies_gives_its_lease_back(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    # A slot that gets no process for this time ends its worker.
    monkeypatch.setattr(service, "UNSTARTED_FOR", 0.0)
    targets: list[str] = []
    with serving(lambda *_: True, answering(204), targets=targets) as (url, _):
        worker = worker_at(url, monkeypatch)
        slot: Any = Failing(worker, error)
        with closing(worker._coordinator):
            assert worker._board.put(lease_of(1, is_chunks=False))
            with pytest.raises(type(error), match="a defect"):
                worker._run_slot(slot)
    assert targets == ["/v1/worker/tasks/attempt/release"]


class Forked:
    """In place of another slot, which has a process."""

    pid = 1


def test_a_slot_that_gets_no_process_does_not_end_the_slots_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "UNSTARTED_FOR", 0.0)
    with serving(lambda *_: True, answering(204)) as (url, _):
        worker = worker_at(url, monkeypatch)
        slot: Any = Failing(worker, SlotNotStarted("no process can be forked"))
        other: Any = Forked()
        worker._slots = [slot, other]
        with closing(worker._coordinator):
            assert worker._board.put(lease_of(1, is_chunks=False))
            worker._run_slot(slot)
    assert worker._board.open_leases() == []


def test_a_module_that_makes_errors_of_warnings_does_not_end_the_fork_server(tmp_path: Path) -> None:
    (tmp_path / "strict.py").write_text('import warnings\n\nwarnings.simplefilter("error")\n')
    command = [sys.executable, "-c", WARNED_FORK_SERVER, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_fork_that_fails_leaves_the_other_slots_in_their_calls(tmp_path: Path) -> None:
    (tmp_path / "limited.py").write_text(LIMITED)
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", FULL_MACHINE]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "none\n" * 3 + "!UnknownTask\n" * 2 + "True\n"
    assert f"no process can be forked: [Errno {errno.EAGAIN}]" in ended.stderr
