"""Imported by the process that slots are forked from, and by nothing else.

That process ends when no pipe to it is open, and slots hold one: without this it would outlive its worker as long
as a slot is in a call. Signals of a terminal or a shell to the worker's whole group are ignored: they would end this
process, and the slots in their calls with it, before the worker has drained.

It takes in the processes whose parents have ended, and waits for them. In a container they would be the worker's own
else, as the first process there, and stay as zombies.
"""

from __future__ import annotations

import ctypes
import signal
import warnings

from .child import die_with_parent

PR_SET_CHILD_SUBREAPER = 36

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
die_with_parent()
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
# The standard library waits for every child, and wonders at each that is no slot.
warnings.filterwarnings("ignore", message="forkserver: waitpid returned unexpected pid")
