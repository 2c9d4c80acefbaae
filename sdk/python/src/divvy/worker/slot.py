"""A slot in its worker: a process that runs one call at a time, and is replaced when it ends or must end."""

from __future__ import annotations

import pickle
import select
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from . import child
from .framing import Inbox
from .watcher import Watcher, kill_groups, take_off_list

#: Seconds that a killed process may take to end.
END_TIMEOUT = 10.0

#: Seconds that a new process may take to import its modules.
START_TIMEOUT = 120.0

#: The longest wait of one poll, in seconds: the system takes milliseconds in 31 bits.
LONGEST_POLL = 1e6

#: Seconds before the second and the third try to fork a process.
START_PAUSES = (0.05, 0.5)


class SlotEnded(Exception):
    """The process ended before it answered. ``str()`` says how."""


class SlotTimedOut(Exception):
    """The process did not answer in time."""


class SlotNotStarted(Exception):
    """No process could be forked, such as where the machine has no memory for it. ``str()`` says why."""


@dataclass(frozen=True)
class SlotOptions:
    """Options that all slots of a worker share."""

    modules: tuple[str, ...] = ()
    max_memory_bytes: int | None = None


def start_context(modules: Sequence[str]) -> ForkServerContext:
    """A context whose processes are forked from one that has imported ``modules`` and runs no thread."""
    context = get_context("forkserver")
    last = ["divvy.worker.forks", "divvy.worker.quiet"]
    context.set_forkserver_preload(["divvy.worker.zygote", "cloudpickle", *modules, *last])
    return context


def leave_resource_tracker() -> None:
    """Lets the interpreter end without waiting for the process that tracks the resources of ``multiprocessing``.

    Python 3.12.10 and later wait for it, and it ends when nothing has its pipe open any more: processes that calls have
    started, and that have left the group of their slot, may have it open for ever.
    """
    tracker: Any = resource_tracker._resource_tracker
    # Its pipe stays: at the interpreter's end modules unregister their locks, which a new tracker would not know.
    tracker._pid = None


class Slot:
    """A slot and its process. One thread sends calls and reads answers; any thread may kill the process."""

    def __init__(self, context: ForkServerContext, options: SlotOptions, watcher: Watcher) -> None:
        self._context = context
        self._options = options
        self._watcher = watcher
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._poll = select.poll()
        self._inbox = Inbox()
        self._was_killed = False
        #: The session whose initializer ran in the process.
        self.session: str | None = None

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        process = self._process
        return process.pid if process is not None else None

    def start(self) -> None:
        """Starts a process unless there is one. ``SlotNotStarted`` where none can be forked."""
        with self._lock:
            if self._process is not None:
                return
            self._was_killed = False
        # Not under the lock: it takes long where the process to fork from has ended and another imports its modules.
        try:
            process, ours = self._fork()
        except (EOFError, OSError) as error:
            raise SlotNotStarted(f"no process can be forked: {type(error).__name__}: {error}") from error
        if process.pid is not None:
            self._watcher.watch(process.pid)
        with self._lock:
            self._process, self._pipe, self.session = process, ours, None
            self._inbox = Inbox()
            self._poll = select.poll()
            self._poll.register(ours.fileno(), select.POLLIN)
            self._poll.register(process.sentinel, select.POLLIN)
            if self._was_killed:
                kill(process)
        self._read(START_TIMEOUT)

    def _fork(self) -> tuple[BaseProcess, Connection]:
        ours, theirs = self._context.Pipe()
        with theirs:
            try:
                arguments = (theirs, self._options.modules, self._options.max_memory_bytes)
                process = self._context.Process(target=child.main, args=arguments, name="divvy-slot")
                fork(process)
                take_off_list(process)
            except BaseException:
                ours.close()
                raise
        return process, ours

    def restart_for(self, session: str | None) -> None:
        """Starts a process for calls of a session: a new one where another session's initializer has run."""
        if self.session is not None and self.session != session:
            self.stop()
        self.start()
        self.session = session

    def send(self, payloads: Sequence[Any]) -> None:
        """Sends calls; each gets an answer, in their order."""
        assert self._pipe is not None
        # A process that has ended shows when its answer is read.
        with suppress(OSError):
            self._pipe.send_bytes(pickle.dumps(payloads, pickle.HIGHEST_PROTOCOL))

    def take_back(self) -> None:
        """Takes back the sent calls that have not begun: each is answered with ``child.TAKEN_BACK``."""
        self.send([])

    def is_silent(self, seconds: float) -> bool:
        """Whether the process goes on and sends no answer within a time."""
        return not self._inbox.has_message() and not self._poll.poll(seconds * 1000)

    def receive(self, timeout: float | None) -> str:
        """The next answer. ``SlotEnded`` or ``SlotTimedOut`` if there is none; the process is gone then."""
        return self._read(timeout).decode()

    def _read(self, timeout: float | None) -> bytes:
        until = None if timeout is None else time.monotonic() + timeout
        while (message := self._inbox.take()) is None:
            assert self._pipe is not None
            left = LONGEST_POLL if until is None else min(LONGEST_POLL, max(0.0, until - time.monotonic()))
            ready = self._poll.poll(left * 1000)
            if not ready:
                if until is None or time.monotonic() < until:
                    continue
                self.stop()
                raise SlotTimedOut
            # Both may be ready: an answer before the end counts.
            if self._pipe.fileno() not in (file for file, _ in ready) or not self._has_read():
                raise SlotEnded(self.stop())
        return message

    def _has_read(self) -> bool:
        """Reads what there is to read. False if that is the end."""
        assert self._pipe is not None
        try:
            return self._inbox.read(self._pipe.fileno())
        except OSError:
            return False

    def kill(self) -> None:
        """Kills the process, also one that starts now, which ends a ``receive`` of another thread."""
        with self._lock:
            self._was_killed = True
            if self._process is not None:
                kill(self._process)

    def forgive(self) -> bool:
        """Whether ``kill`` ended the last process: then the call is not to blame."""
        return self._was_killed

    def stop(self) -> str:
        """Ends the process and says how it ended."""
        with self._lock:
            process, pipe = self._process, self._pipe
            self._process = self._pipe = self.session = None
        if pipe is not None:
            pipe.close()
        if process is None:
            return "was not running"
        # Its exit status may be on its way already.
        process.join(timeout=0.2)
        # Also where it has ended: processes that its calls have started may go on.
        kill(process)
        process.join(timeout=END_TIMEOUT)
        words = describe_exit(process.exitcode)
        if process.exitcode is not None:
            if process.pid is not None:
                self._watcher.forget(process.pid)
            process.close()
        return words


def fork(process: BaseProcess) -> None:
    """Starts a process, also where the one that it is forked from has just ended: the next try makes another one."""
    for pause in START_PAUSES:
        try:
            return process.start()
        except (EOFError, OSError):
            time.sleep(pause)
    return process.start()


def kill(process: BaseProcess) -> None:
    """Kills a slot's process and what its calls have started, as far as that has not left its group."""
    if process.pid is not None:
        kill_groups([process.pid])
    process.kill()


def describe_exit(code: int | None) -> str:
    """The end of a process in words, by its exit code."""
    if code is None:
        return "could not be ended"
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"was ended by {name}" + (", such as when memory runs out" if -code == signal.SIGKILL else "")
