"""Calls and their outcomes as JSON, as ``GridExecutor`` and Python workers exchange them.

A call is the payload of a task of the kind ``tasks``::

    {"divvy": 1, "python": "3.11", "cloudpickle": "3.1", "sdk": "0.1.0", "attempts": 4, "call": BASE64}

``call`` is the pickle of ``(function, args, kwargs)``. A chunk of ``map`` has ``function`` and ``chunk`` instead,
``chunk`` being the pickle of a list of argument tuples. ``timeout`` is the time that one attempt may take,
``session`` and ``initializer`` what a slot runs first. A call of a registered function is ``{"divvy": 1, "task":
NAME, "args": [...], "kwargs": {...}}``; its result is plain JSON.

An outcome is the task's result::

    {"divvy": 1, "value": BASE64}                   the pickled value
    {"divvy": 1, "values": BASE64, "error": ...}    a chunk's values, up to the error if there is one
    {"divvy": 1, "error": {"kind", "type", "message", "traceback", "pickle"}}

Unpickling runs code of the other side: a worker runs that of its clients, a client that of its workers.
"""

from __future__ import annotations

import json
import pickle
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from . import errors
from ._version import __version__
from .registry import check_name

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Number of this format; a worker declines every other.
FORMAT = 1

#: Python's ``major.minor``: bytecode of another one does not run.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

#: The label whose value says which calls a worker takes: ``single-1`` or ``chunk-1``.
CALLS_LABEL = "python-calls"

#: The label whose value is the SDK's ``major.minor``.
SDK_LABEL = "divvy-sdk"

#: Labels of a worker beside those of its options: ``python``, ``cloudpickle``, ``divvy-sdk``, ``python-calls``.
OWN_LABELS = 4

#: The most attempts of a call, as of a job.
MAX_ATTEMPTS = 100

#: The longest time of a call, in seconds: some 30 years.
MAX_TIMEOUT = 1e9

#: Pickled by the C pickler, which writes the same for these as cloudpickle, in a tenth of the time.
_PLAIN = frozenset({int, float, str, bytes, bool, complex, type(None)})

Payload = Mapping[str, Any]


@cache
def cloudpickle_version() -> str:
    """cloudpickle's ``major.minor``."""
    import cloudpickle

    return major_minor(cloudpickle.__version__)


def major_minor(version: object) -> str:
    """The first two numbers of a version."""
    return ".".join(str(version).split(".")[:2])


def call_labels(kind: str) -> dict[str, str]:
    """The labels of workers that take calls of a kind, ``single`` or ``chunk``, from this Python and this SDK."""
    return {
        "python": PYTHON,
        "cloudpickle": cloudpickle_version(),
        SDK_LABEL: major_minor(__version__),
        CALLS_LABEL: f"{kind}-{FORMAT}",
    }


def task_label(name: str) -> str:
    """The label of workers that have a function registered under a name. ``ValueError`` if none can."""
    check_name(name)
    return f"python-task.{name}"


def dumps(value: Any) -> bytes:
    """Pickles a value: functions and classes of ``__main__`` by value, as cloudpickle does."""
    if _is_plain(value):
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    import cloudpickle

    pickled: bytes = cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return pickled


def _is_plain(value: Any) -> bool:
    """Whether a value is a scalar, or a list or tuple of scalars or of tuples of scalars."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is not list and kind is not tuple:
        return False
    kinds = set(map(type, value))
    if kinds <= _PLAIN:
        return True
    return kinds == {tuple} and {type(one) for each in value for one in each} <= _PLAIN


def to_text(blob: bytes) -> str:
    """Bytes as base64."""
    return b64encode(blob).decode("ascii")


def common_fields(
    *, attempts: int, timeout: float | None, session: str | None, initializer: tuple[Callable[..., object], Any] | None
) -> str:
    """The fields that all calls of an executor share, as JSON text without its last brace."""
    fields: dict[str, Any] = {
        "divvy": FORMAT,
        "python": PYTHON,
        "cloudpickle": cloudpickle_version(),
        "sdk": __version__,
        "attempts": attempts,
    }
    if timeout is not None:
        fields["timeout"] = timeout
    if initializer is not None:
        fields["session"] = session
        fields["initializer"] = to_text(dumps(initializer))
    return json.dumps(fields, separators=(",", ":"))[:-1]


def single_call(common: str, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The payload of one call."""
    return f'{common},"call":"{to_text(dumps((function, args, kwargs)))}"}}'


def chunk_head(common: str, function: Callable[..., object]) -> str:
    """The common start of the payloads of all chunks of a ``map``."""
    return f'{common},"function":"{to_text(dumps(function))}","chunk":"'


def chunk_call(head: str, chunk: list[tuple[Any, ...]]) -> str:
    """The payload of a chunk of a ``map``."""
    return f'{head}{to_text(dumps(chunk))}"}}'


def named_call(name: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The payload of a call of a registered function."""
    return {"divvy": FORMAT, "task": name, "args": list(args), "kwargs": dict(kwargs)}


def mismatch(payload: Any) -> str | None:
    """The reason for which a worker declines a payload, as ``NAME: message``; None if it takes it."""
    if not isinstance(payload, dict) or "divvy" not in payload:
        return "UnknownTask: the payload is no call for a Python worker"
    if payload["divvy"] != FORMAT:
        return f"VersionMismatch: the call has format {payload['divvy']!r}, this worker takes {FORMAT}"
    if (malformed := _malformed(payload)) is not None:
        return f"UnknownTask: {malformed}"
    if "task" in payload:
        return None
    if payload.get("python") != PYTHON:
        return f"VersionMismatch: the call is from Python {payload.get('python')}, this worker runs {PYTHON}"
    if payload.get("cloudpickle") != cloudpickle_version():
        theirs = payload.get("cloudpickle")
        return f"VersionMismatch: the call is from cloudpickle {theirs}, this worker has {cloudpickle_version()}"
    # Most calls come from the very same version.
    if payload.get("sdk") != __version__ and major_minor(payload.get("sdk")) != major_minor(__version__):
        return f"VersionMismatch: the call is from divvy {payload.get('sdk')}, this worker has {__version__}"
    return None


def _malformed(payload: Payload) -> str | None:
    """The error in the fields that a worker reads itself; None if they are valid."""
    if "task" in payload and not isinstance(payload["task"], str):
        return "the field 'task' of the payload must be a string"
    timeout, attempts = payload.get("timeout"), payload.get("attempts", 1)
    if timeout is not None and not (isinstance(timeout, (int, float)) and 0 < timeout <= MAX_TIMEOUT):
        return f"the field 'timeout' of the payload must be seconds above 0 and up to {MAX_TIMEOUT:.0f}"
    if not (isinstance(attempts, int) and 1 <= attempts <= MAX_ATTEMPTS):
        return f"the field 'attempts' of the payload must be a whole number from 1 to {MAX_ATTEMPTS}"
    return None


def carries_code(payload: Any) -> bool:
    """Whether a payload is a call whose function travels in it."""
    return isinstance(payload, dict) and "divvy" in payload and "task" not in payload


def value_outcome(value: Any) -> str:
    """The outcome of a call that returned."""
    return f'{{"divvy":{FORMAT},"value":"{to_text(dumps(value))}"}}'


def chunk_outcome(values: list[Any], error: str | None) -> str:
    """The outcome of a chunk: its values, up to the ``error_field`` if there is one."""
    tail = f',"error":{error}' if error else ""
    return f'{{"divvy":{FORMAT},"values":"{to_text(dumps(values))}"{tail}}}'


def error_outcome(error: str) -> str:
    """The outcome of a call that has no value."""
    return f'{{"divvy":{FORMAT},"error":{error}}}'


def words_of(error: BaseException) -> str:
    """An exception's message, also where its own code for it fails."""
    try:
        return str(error)
    except BaseException as problem:
        return f"its message cannot be made: {type(problem).__name__}"


def error_field(kind: str, message: str, *, type_name: str = "", traceback: str = "", pickled: bytes = b"") -> str:
    """An error as JSON. ``kind`` is ``raised`` or the name of a class in ``divvy.errors``."""
    field = {"kind": kind, "type": type_name, "message": message, "traceback": traceback, "pickle": to_text(pickled)}
    return json.dumps(field)


def to_exception(field: Mapping[str, Any]) -> BaseException:
    """The exception that an error stands for, with the traceback of the worker as its cause."""
    kind, message, text = str(field.get("kind")), str(field.get("message", "")), str(field.get("traceback", ""))
    error: BaseException
    if kind == "raised":
        error = _unpickled(field, message)
    else:
        named = getattr(errors, kind, errors.TaskFailed)
        is_ours = isinstance(named, type) and issubclass(named, (errors.TaskError, errors.BrokenGridExecutor))
        error = named(message) if is_ours and named is not errors.RemoteError else errors.TaskFailed(message)
    if text:
        # Not by the class's own way, which may refuse it, such as that of a frozen dataclass.
        BaseException.__setattr__(error, "__cause__", errors.RemoteTraceback(text))
    return error


def _unpickled(field: Mapping[str, Any], message: str) -> BaseException:
    type_name = str(field.get("type", ""))
    blob = b64decode(field.get("pickle", ""))
    if blob:
        try:
            error = pickle.loads(blob)
        except BaseException as problem:
            return errors.RemoteError(type_name, f"{message} (it cannot be unpickled here: {words_of(problem)})")
        if isinstance(error, BaseException):
            return error
    return errors.RemoteError(type_name, message)


def failed_task(reason: str) -> errors.TaskError:
    """The exception for a task that the grid gave up; workers begin their reasons with an exception's name."""
    name, _, message = reason.partition(": ")
    named = getattr(errors, name, None)
    if isinstance(named, type) and issubclass(named, errors.TaskError) and named is not errors.RemoteError:
        return named(message)
    return errors.TaskFailed(reason)


def breaks_executor(outcome: Any) -> bool:
    """Whether an outcome says that the initializer failed, not that the call raised the error of another executor."""
    error = outcome.get("error") if isinstance(outcome, dict) else None
    return isinstance(error, dict) and error.get("kind") == "BrokenGridExecutor"


def settle(future: Future[Any], outcome: Any) -> None:
    """Gives a future what a worker answered. A future that is settled or canceled stays as it is."""
    try:
        value, error = _parse(outcome)
    except BaseException as problem:
        words = f"{type(problem).__name__}: {words_of(problem)}"
        value, error = None, errors.NotPicklable(f"the result cannot be unpickled here: {words}")
    give(future, value, error)


def give(future: Future[Any], value: Any, error: BaseException | None) -> None:
    """Settles a future unless it is settled or canceled."""
    if future.done():
        return
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
    except Exception:
        # It was canceled in between; `InvalidStateError` says no more than that.
        if not future.done():
            raise


def _parse(outcome: Any) -> tuple[Any, BaseException | None]:
    if not isinstance(outcome, dict) or outcome.get("divvy") != FORMAT:
        return None, errors.VersionMismatch("the result is not of this SDK's format")
    error = to_exception(outcome["error"]) if "error" in outcome else None
    if "values" in outcome:
        return (pickle.loads(b64decode(outcome["values"])), error), None
    if error is not None:
        return None, error
    return pickle.loads(b64decode(outcome["value"])), None
