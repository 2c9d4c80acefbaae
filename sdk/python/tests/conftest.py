from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor

from .helpers import COMMAND, Coordinator, Worker


@pytest.fixture(scope="session")
def grid() -> Iterator[Coordinator]:
    """A coordinator with one Python worker of two slots, shared by tests that leave it as it is."""
    coordinator = Coordinator()
    worker = Worker(coordinator, "--import", "tests.functions").ready()
    yield coordinator
    assert worker.stop() == 0, worker.lines
    worker.kill()
    coordinator.close()


@pytest.fixture
def client(grid: Coordinator) -> Iterator[Client]:
    with Client(grid.url) as client:
        yield client


@pytest.fixture
def executor(grid: Coordinator) -> Iterator[GridExecutor]:
    with GridExecutor(grid.url) as executor:
        yield executor


@pytest.fixture
def scripts() -> str:
    """A `PATH` on which `divvy up` finds the Python worker, where the command is built."""
    if not COMMAND.exists():
        pytest.fail(f"there is no {COMMAND}: cargo build -p divvy")
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Starts processes that end with the test: ``start(Coordinator, …)``, ``start(Worker, coordinator, …)``."""
    with ExitStack() as stack:

        def start(kind: Callable[..., Any], *args: Any, **variables: Any) -> Any:
            process = kind(*args, **variables)
            stack.callback(process.close if isinstance(process, Coordinator) else process.kill)
            return process

        yield start
