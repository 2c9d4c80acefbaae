"""All exceptions of the package.

``DivvyError`` is their base. ``GridError`` and its subclasses carry the coordinator's answer; ``TaskError`` and its
subclasses are set on futures whose call has no result.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor


class DivvyError(Exception):
    """Base of all exceptions of this package."""


class ClientClosed(DivvyError, RuntimeError):
    """The client was closed: its streams of events end, and an ``AsyncClient`` cannot be used any more."""


class GridUnreachable(DivvyError, ConnectionError):
    """The coordinator did not answer within the client's ``retry_for``."""


class GridError(DivvyError):
    """The coordinator refused a request. ``status`` is the HTTP status, ``field`` the wrong field if there is one."""

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        super().__init__(status, detail, field)
        self.status = status
        self.detail = detail
        self.field = field
        #: Whether the answer has the form of a coordinator's: that of a proxy says nothing of a job.
        self.is_problem = False

    def __str__(self) -> str:
        return f"{self.detail} (HTTP {self.status})"


class InvalidRequest(GridError, ValueError):
    """400 and 405: a parameter or a field is not as it must be."""


class Unauthorized(GridError, PermissionError):
    """401 and 403: the token is missing, wrong or has no right to this."""

    # OSError would take the arguments for an errno and a message.
    def __str__(self) -> str:
        return GridError.__str__(self)


class NotFound(GridError, LookupError):
    """404: there is no such job, result or path."""


class Conflict(GridError):
    """409: the job's state does not allow this, or the attempt holds no lease."""


class PayloadTooLarge(GridError, ValueError):
    """413: a request is longer than the grid, or the executor's ``max_call_bytes``, allows."""


class Mismatch(GridError):
    """422: another job was submitted under this id or key."""


class Unavailable(GridError):
    """429, 503 and 507: the grid cannot take this now. 408, 502 and 504: a proxy says so of it."""


class JobFailed(DivvyError):
    """The job is over without a result. ``job_id`` names it."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(job_id, reason)
        self.job_id = job_id
        self.reason = reason

    def __str__(self) -> str:
        return f"job {self.job_id}: {self.reason}"


class JobCanceled(JobFailed):
    """The job was canceled."""


class JobLost(JobFailed):
    """The grid does not know the job any more."""


class TaskError(DivvyError):
    """A call has no result. ``str()`` says why."""


class TaskFailed(TaskError):
    """The grid gave the task up: no attempts are left, or its job is over."""


class TaskCrashed(TaskError):
    """The process that ran the call ended before the call did, at each allowed attempt."""


class TaskTimedOut(TaskError, TimeoutError):
    """The call took longer than ``task_timeout``, at each allowed attempt."""


class VersionMismatch(TaskError):
    """A worker declined the call: its Python, cloudpickle, SDK or call format is another."""


class NotAdmitted(TaskError):
    """A worker declined the call: its job was submitted without the right ``programs``."""


class UnknownTask(TaskError, LookupError):
    """A worker declined the call: it has no function registered under this name."""


class NotPicklable(TaskError):
    """The call's function, arguments or result cannot be pickled, or not be unpickled where they are needed."""


class ResultTooLarge(TaskError):
    """The call's result is longer than a worker can report."""


class RemoteError(TaskError):
    """The call raised an exception that cannot be pickled, or is too long: ``type_name`` and its message are left."""

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(type_name, message)
        self.type_name = type_name
        self.message = message

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"


class RemoteTraceback(DivvyError):
    """The ``__cause__`` of an exception that a call raised on the grid: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class BrokenGridExecutor(DivvyError, BrokenExecutor):
    """The executor takes no more calls: its initializer failed, or one of its threads died."""


_BY_STATUS: dict[int, type[GridError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    405: InvalidRequest,
    408: Unavailable,
    409: Conflict,
    413: PayloadTooLarge,
    422: Mismatch,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: Unavailable,
}


def grid_error(status: int, detail: str, field: str | None = None) -> GridError:
    """The exception for an HTTP status."""
    return _BY_STATUS.get(status, GridError)(status, detail, field)
