"""``@task``: functions that workers run by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

#: The grid takes 32 labels of a worker; each name is one, and some are left for the operator.
MAX_TASKS = 24

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_registered: dict[str, Callable[..., Any]] = {}


def task(name: str) -> Callable[[Function], Function]:
    """Registers a function under a name; a worker started with ``--import`` of its module runs calls of that name.

    Arguments and result are JSON, so that a client in any language can submit
    ``{"divvy": 1, "task": name, "args": [...], "kwargs": {...}}`` as a payload.
    """
    check_name(name)

    def register(function: Function) -> Function:
        before = _registered.get(name)
        if before is not None and (before.__module__, before.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ValueError(f"the name {name!r} belongs to {before.__module__}.{before.__qualname__}")
        if before is None and len(_registered) >= MAX_TASKS:
            raise ValueError(f"a worker runs at most {MAX_TASKS} named tasks: spread them over several workers")
        _registered[name] = function
        return function

    return register


def check_name(name: str) -> None:
    """``ValueError`` where no task can have the name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"a task's name has 1 to 128 of A-Z, a-z, 0-9, '.', '-' and '_', not {name!r}")


def registered() -> dict[str, Callable[..., Any]]:
    """All registered functions by name."""
    return dict(_registered)
