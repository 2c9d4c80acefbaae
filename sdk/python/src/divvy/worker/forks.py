"""Imported by the process that slots are forked from, when it has imported all else, and by nothing else.

The standard library's fork server ends where a fork fails, such as at a limit of processes or where the machine has no
memory for it, and all slots end with it, in the midst of their calls. Here it drops the request instead, as one whose
client has gone: the client sees its pipes end.
"""

from __future__ import annotations

import errno
import logging
import os
import sys

log = logging.getLogger("divvy.worker")

#: The fork server's names of a request's files: a list, and those by which the client sees the end.
_OTHERS, _FILES = "fds", ("child_r", "child_w")

_fork = os.fork


def fork() -> int:
    """Forks. Where that fails, drops the request of the fork server that calls this."""
    try:
        pid = _fork()
    except OSError as error:
        request = sys._getframe(1).f_locals
        if not all(name in request for name in (_OTHERS, *_FILES)):
            raise
        log.warning("no process can be forked: %s", error)
        for file in (*request[_OTHERS], *(request[name] for name in _FILES)):
            os.close(file)
        raise ConnectionAbortedError(errno.ECONNABORTED, "the request is dropped") from error
    if pid == 0:
        # Calls fork as everywhere.
        os.fork = _fork
    return pid


os.fork = fork
