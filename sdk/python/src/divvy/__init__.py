"""divvy: a grid's client, its executor and ``@task``.

``Client`` needs the standard library only, ``GridExecutor`` cloudpickle (the extra ``executor``), ``AsyncClient``
aiohttp (``async``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from ._version import __version__
from .client import Client
from .completed import as_completed
from .errors import DivvyError
from .job import Job
from .models import JobEvent
from .registry import task

if TYPE_CHECKING:
    from .aio import AsyncClient, AsyncJob
    from .executor import GridExecutor

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "DivvyError",
    "GridExecutor",
    "Job",
    "JobEvent",
    "__version__",
    "as_completed",
    "errors",
    "task",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: a client that only submits jobs needs none of the extras.
    if name == "GridExecutor":
        from .executor import GridExecutor

        return GridExecutor
    if name in ("AsyncClient", "AsyncJob"):
        from . import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
