"""Imported by the process that slots are forked from, and by nothing else.

That process ends when no pipe to it is open, and slots hold one: without this it would outlive its worker as long
as a slot is in a call. Signals of a terminal or a shell to the worker's whole group are ignored: they would end this
process, and the slots in their calls with it, before the worker has drained.
"""

from __future__ import annotations

import signal

from .child import die_with_parent

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
die_with_parent()
