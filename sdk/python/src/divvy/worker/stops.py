"""Signals that stop a worker do not end its slots: the worker decides when they end.

A supervisor such as systemd sends them to every process of a unit. Processes that calls fork, and programs that they
start, end at these signals as everywhere.
"""

from __future__ import annotations

import os
import signal
import threading

STOPS = (signal.SIGTERM, signal.SIGHUP)

#: The signals that a thread has blocked before it forks.
_before = threading.local()


def leave_to_the_worker() -> None:
    """Makes these signals do nothing here. Call it from the main thread of a slot's process."""
    for number in STOPS:
        # No `SIG_IGN`: programs that calls start would inherit it.
        signal.signal(number, _go_on)
        # A system call of a C library is not interrupted.
        signal.siginterrupt(number, False)
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_end_at_stops)


def _go_on(*_: object) -> None:
    """Ignores the signal."""


def _hold() -> None:
    # The child would lose a signal that comes before `_end_at_stops` has set its handlers.
    _before.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.blocked)


def _end_at_stops() -> None:
    for number in STOPS:
        # A call may have set a handler of its own.
        if signal.getsignal(number) is _go_on:
            signal.signal(number, signal.SIG_DFL)
    _release()
