"""Kills the processes that calls have started when their worker is killed, which runs no code of the worker.

The kernel kills the slots themselves only. So one more process, forked as slots are, keeps the numbers of the slots'
process groups and a pipe, whose end tells of the worker's end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import process as processes
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any


class Watcher:
    """The process, as its worker sees it. Any thread may call its methods."""

    def __init__(self, context: ForkServerContext) -> None:
        reader, self._pipe = context.Pipe(duplex=False)
        # The pipe ends with the worker, also when it ends by itself, at a time when no slot is left.
        self._process = context.Process(target=main, args=(reader,), name="divvy-watcher")
        self._process.start()
        take_off_list(self._process)
        reader.close()
        self._lock = threading.Lock()

    def watch(self, group: int) -> None:
        """Takes a group to kill when the worker ends."""
        self._tell(group)

    def forget(self, group: int) -> None:
        """Leaves a group alone that is gone: its number may be another one's soon."""
        self._tell(-group)

    def _tell(self, number: int) -> None:
        # Without a watcher calls run all the same.
        with self._lock, suppress(OSError):
            self._pipe.send(number)


def main(pipe: Connection) -> None:
    """Waits for the worker's end, out of reach of signals to its group, and then kills the groups of its slots."""
    os.setsid()
    groups: set[int] = set()
    with suppress(EOFError, OSError):
        while True:
            number = pipe.recv()
            if number > 0:
                groups.add(number)
            else:
                groups.discard(-number)
    kill_groups(groups)


def take_off_list(process: BaseProcess) -> None:
    """Takes a process off the standard library's list, for whose processes the interpreter waits when it ends.

    Each start of a process looks for the ends of all on the list. Where the threads of two slots look for the same end
    at a time, one of them may get a wrong status, or fail.
    """
    module: Any = processes
    module._children.discard(process)


def kill_groups(groups: Iterable[int]) -> None:
    """Kills groups of processes, as far as they are there."""
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
