"""The code of a slot's process: reads calls from a pipe, runs them one by one and answers each.

The process dies with its worker: the kernel kills it when its parent ends, however deep in a call it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import os
import pickle
import resource
import select
import signal
import sys
import traceback
from base64 import b64decode
from collections.abc import Callable, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from ..calls import chunk_outcome, dumps, error_field, error_outcome, value_outcome, words_of
from ..registry import registered
from .framing import write_message
from .stops import leave_to_the_worker

PR_SET_PDEATHSIG = 1

#: The longest outcome that is answered; the service takes reports of 64 MiB.
MAX_OUTCOME_BYTES = 60 * 1024 * 1024

#: The longest traceback and message that travel, in characters, and the longest pickled exception, in bytes.
MAX_TRACEBACK_CHARS = 100_000
MAX_EXCEPTION_BYTES = 16 * 1024 * 1024

#: Functions of maps that a process keeps, and the longest of them, as base64.
KEPT_FUNCTIONS = 4
MAX_KEPT_CHARS = 256 * 1024

#: First character of an answer: the text after it is an outcome, or a reason for the grid to try the task again.
OUTCOME, FAILURE = "=", "!"

#: The answer to a call that was taken back before it began.
TAKEN_BACK = "<"

#: The first message of the process, when its modules are imported.
READY = b"ready"


def main(pipe: Connection, modules: Sequence[str], max_memory_bytes: int | None) -> None:
    """Serves calls until the pipe ends. Each message is a list of payloads; each payload gets an answer.

    An empty list that comes before all of them are answered takes back those that have not begun.
    """
    # Ctrl-C on a terminal reaches the whole process group, and the worker decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    # A group of its own: processes that calls start are killed with it, and signals to the worker's group do not come.
    os.setpgid(0, 0)
    leave_to_the_worker()
    _be_the_first_to_die()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Lines that a call prints show at once, and are not lost where its process is killed.
        sys.stdout.reconfigure(line_buffering=True)
    if max_memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (max_memory_bytes, max_memory_bytes))
    for module in modules:
        importlib.import_module(module)
    _draw_anew()
    write_message(pipe.fileno(), READY)
    session: str | None = None
    incoming = select.poll()
    incoming.register(pipe.fileno(), select.POLLIN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            session = serve(pipe, incoming, session)


def serve(pipe: Connection, incoming: select.poll, session: str | None) -> str | None:
    """Answers the calls of one message, and keeps none of them in memory."""
    own = os.getpid()
    calls = pickle.loads(pipe.recv_bytes())
    for number, payload in enumerate(calls):
        if number > 0 and incoming.poll(0):
            pipe.recv_bytes()
            for _ in calls[number:]:
                write_message(pipe.fileno(), TAKEN_BACK.encode())
            return session
        answer, session = run(payload, session)
        if os.getpid() != own:
            # The call has forked, and this is the child: the answers are its parent's.
            os._exit(0)
        # A message of an exception may hold surrogates, such as those of a file's name (PEP 383).
        write_message(pipe.fileno(), answer.encode(errors="backslashreplace"))
    return session


def die_with_parent() -> None:
    """Asks the kernel to kill this process when the thread that forked it ends: no code here has to run then."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _be_the_first_to_die() -> None:
    """Asks the kernel to kill this process before the worker when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _draw_anew() -> None:
    """Gives numpy's global generator a state of its own, as every fork gives one to Python's.

    All slots are forked from the same state, and would draw the same numbers.
    """
    generator = sys.modules.get("numpy.random")
    if generator is not None:
        generator.seed()


def run(payload: dict[str, Any], session: str | None) -> tuple[str, str | None]:
    """Runs one call; returns the answer and the session whose initializer has run."""
    if "task" in payload:
        return _run_named(payload), session
    wanted = payload.get("session")
    if wanted is not None and wanted != session:
        try:
            initializer, arguments = pickle.loads(b64decode(payload["initializer"]))
            initializer(*arguments)
        except BaseException as error:
            message = f"the initializer failed with {type(error).__name__}: {_words(error)}"
            field = error_field("BrokenGridExecutor", message, traceback=_traceback(error))
            return OUTCOME + error_outcome(field), session
        session = wanted
    outcome = _run_chunk(payload) if "chunk" in payload else _run_single(payload)
    if len(outcome) > MAX_OUTCOME_BYTES:
        message = f"the result takes {len(outcome)} bytes, and {MAX_OUTCOME_BYTES} can be reported"
        outcome = error_outcome(error_field("ResultTooLarge", message))
    return OUTCOME + outcome, session


def _run_single(payload: dict[str, Any]) -> str:
    try:
        function, args, kwargs = pickle.loads(b64decode(payload["call"]))
    except BaseException as error:
        return error_outcome(_unreadable(error))
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return error_outcome(_raised(error))
    try:
        return value_outcome(value)
    except BaseException as error:
        return error_outcome(_not_picklable(error))


def _function(text: str) -> Callable[..., Any]:
    """The function of a map. Unpickling one that travels by value takes longer than a short call: it is kept."""
    return _kept_function(text) if len(text) <= MAX_KEPT_CHARS else _unpickle(text)


def _unpickle(text: str) -> Callable[..., Any]:
    function: Callable[..., Any] = pickle.loads(b64decode(text))
    return function


_kept_function = lru_cache(maxsize=KEPT_FUNCTIONS)(_unpickle)


def _run_chunk(payload: dict[str, Any]) -> str:
    try:
        function = _function(payload["function"])
        chunk = pickle.loads(b64decode(payload["chunk"]))
    except BaseException as error:
        return error_outcome(_unreadable(error))
    values: list[Any] = []
    raised: str | None = None
    try:
        for args in chunk:
            values.append(function(*args))  # noqa: PERF401 (what came before an exception is kept)
    except BaseException as error:
        raised = _raised(error)
    try:
        return chunk_outcome(values, raised)
    except BaseException as error:
        return error_outcome(_not_picklable(error))


def _run_named(payload: dict[str, Any]) -> str:
    name = payload["task"]
    function = registered().get(name)
    if function is None:
        return f"{FAILURE}UnknownTask: this worker has no function registered as {name!r}"
    try:
        outcome = json.dumps(function(*payload.get("args", ()), **payload.get("kwargs", {})), allow_nan=False)
    except BaseException as error:
        return f"{FAILURE}{type(error).__name__}: {_words(error)}"
    if len(outcome) > MAX_OUTCOME_BYTES:
        return f"{FAILURE}ResultTooLarge: the result takes {len(outcome)} bytes, {MAX_OUTCOME_BYTES} can be reported"
    return OUTCOME + outcome


def _raised(error: BaseException) -> str:
    pickled = b""
    with contextlib.suppress(BaseException):
        pickled = dumps(error)
        pickle.loads(pickled)
    if len(pickled) > MAX_EXCEPTION_BYTES:
        # Its name, message and traceback are worth more than what it holds.
        pickled = b""
    message = _words(error)
    return error_field("raised", message, type_name=type(error).__name__, traceback=_traceback(error), pickled=pickled)


def _unreadable(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        # The pickle may be as good as any: the process has no room for what it holds.
        return _raised(error)
    message = f"the call cannot be unpickled on the worker: {type(error).__name__}: {_words(error)}"
    return error_field("NotPicklable", message, traceback=_traceback(error))


def _not_picklable(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return _raised(error)
    message = f"the result cannot be pickled: {type(error).__name__}: {_words(error)}"
    return error_field("NotPicklable", message, traceback=_traceback(error))


def _words(error: BaseException) -> str:
    """The message of an exception, as far as it travels."""
    return words_of(error)[:MAX_TRACEBACK_CHARS]


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))[-MAX_TRACEBACK_CHARS:]
