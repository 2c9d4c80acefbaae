"""Imported by the process that slots are forked from, and by nothing else.

That process ends when no pipe to it is open, and slots hold one: without this it would outlive its worker as long
as a slot is in a call. Signals of a terminal or a shell to the worker's whole group are ignored: they would end this
process, and the slots in their calls with it, before the worker has drained.

The kernel makes it the parent of the processes that calls have started and whose own parent has ended, and it waits for
them. In a container they would otherwise become children of the worker, the first process there, and stay as zombies.
"""

from __future__ import annotations

import ctypes
import signal

from .child import die_with_parent

PR_SET_CHILD_SUBREAPER = 36

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
die_with_parent()
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
