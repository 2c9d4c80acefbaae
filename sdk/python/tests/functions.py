"""Functions that workers of the tests import."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import divvy


def power(base: int, exponent: int) -> int:
    return int(base**exponent)


def double(value: int) -> int:
    return 2 * value


def capture(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def pid(_: object = None) -> int:
    return os.getpid()


def variable(name: str) -> str | None:
    return os.environ.get(name)


def raise_value_error(text: str) -> NoReturn:
    raise ValueError(text)


def die(number: int = signal.SIGKILL, *, parent: bool = False) -> NoReturn:
    os.kill(os.getppid() if parent else os.getpid(), number)
    time.sleep(60)
    raise AssertionError("unreachable")


def die_once(marker: str) -> int:
    """Dies the first time that it is called with a marker."""
    path = Path(marker)
    if not path.exists():
        path.write_text(str(os.getpid()))
        die()
    return os.getpid()


def kill_parent_once(marker: str) -> int:
    """Kills the process that slots are forked from, and so its own, the first time that it is called with a marker."""
    path = Path(marker)
    if not path.exists():
        path.write_text(str(os.getpid()))
        die(parent=True)
    return os.getpid()


def touch_and_wait(touched: str, awaited: str) -> str:
    """Makes a file, then waits for another one."""
    Path(touched).write_text(str(os.getpid()))
    until = time.monotonic() + 60
    while not Path(awaited).exists():
        if time.monotonic() > until:
            raise TimeoutError(awaited)
        time.sleep(0.01)
    return awaited


def nap_unless(gate: str) -> None:
    """Takes a moment while there is no such file."""
    if not Path(gate).exists():
        time.sleep(0.02)


def draw(directory: str, count: int) -> float:
    """Waits until it runs in so many processes, and returns a number of numpy's global generator."""
    (Path(directory) / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while len(list(Path(directory).iterdir())) < count:
        if time.monotonic() > until:
            raise TimeoutError(directory)
        time.sleep(0.01)
    return float(importlib.import_module("numpy.random").random())


def count_call(directory: str, seconds: float) -> int:
    """Notes that it was called."""
    (Path(directory) / f"{time.monotonic_ns()}-{os.getpid()}").touch()
    time.sleep(seconds)
    return len(list(Path(directory).iterdir()))


def allocate(size: int) -> int:
    return len(bytearray(size))


def fork_and_return(marker: str) -> str:
    """Forks, and returns in both processes."""
    child = os.fork()
    if child == 0:
        Path(marker).write_text(str(os.getpid()))
        return "child"
    os.waitpid(child, 0)
    return "parent"


def leave_an_orphan(marker: str) -> int:
    """Leaves a process whose parent has ended, which notes its number and its next parent, and ends.

    Returns the process that slots are forked from.
    """
    child = os.fork()
    if child == 0:
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.01)
            Path(f"{marker}.part").write_text(f"{os.getpid()} {os.getppid()}")
            Path(f"{marker}.part").rename(marker)
        os._exit(0)
    os.waitpid(child, 0)
    return os.getppid()


def leave_the_group() -> int:
    """Leaves a process that is in no group of a worker, and has the files of its slot but for the output."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.write(writer, b"!")
        time.sleep(600)
        os._exit(0)
    # Not before it has left: the worker kills the group of its slot.
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    return child


def end_what_was_started() -> list[int]:
    """By which signals a forked process and a program end that get SIGTERM."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"!")
        while True:
            signal.pause()
    os.read(reader, 1)
    program = subprocess.Popen(["sleep", "600"])
    program.terminate()
    os.kill(child, signal.SIGTERM)
    os.close(reader)
    os.close(writer)
    return [-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), -program.wait()]


def start_and_wait(marker: str) -> NoReturn:
    """Starts a process that outlives its parent unless it is killed, and waits for ever."""
    started = subprocess.Popen(["sleep", "600"])
    Path(marker).write_text(str(started.pid))
    time.sleep(600)
    raise AssertionError("unreachable")


def start_and_die(marker: str) -> NoReturn:
    """Starts a process that outlives its parent unless it is killed, and dies."""
    started = subprocess.Popen(["sleep", "600"])
    Path(marker).write_text(str(started.pid))
    die()


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_wordless() -> NoReturn:
    raise WordlessError


class WordlessAtUnpickle:
    def __reduce__(self) -> Any:
        return raise_wordless, ()


class CountedAtUnpickle:
    """A function that notes in a directory each time that it is unpickled."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def __reduce__(self) -> Any:
        return unpickle_counted, (self._directory,)

    def __call__(self, value: int) -> int:
        return 2 * value


def unpickle_counted(directory: str) -> CountedAtUnpickle:
    (Path(directory) / f"{time.monotonic_ns()}-{os.getpid()}").touch()
    return CountedAtUnpickle(directory)


class ErrorAtPickle:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


class ExitAtPickle:
    def __reduce__(self) -> Any:
        sys.exit(3)


class CrashAtPickle:
    def __reduce__(self) -> Any:
        die()


class ErrorAtUnpickle:
    def __reduce__(self) -> Any:
        return raise_value_error, ("not to be unpickled",)


class LargeAtUnpickle:
    """A short pickle of what takes 1 GiB, or of an object that takes as much to be pickled."""

    def __init__(self, *, is_large_at_pickle: bool = False) -> None:
        self._is_large_at_pickle = is_large_at_pickle

    def __reduce__(self) -> Any:
        if self._is_large_at_pickle:
            return bytes, (bytes(1 << 30),)
        return bytes, (1 << 30,)


def large_at_pickle() -> LargeAtUnpickle:
    return LargeAtUnpickle(is_large_at_pickle=True)


class ExitAtUnpickle:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class CrashAtUnpickle:
    def __reduce__(self) -> Any:
        return die, ()


def make(kind: type[Any]) -> Any:
    return kind()


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        import threading

        self.lock = threading.Lock()


def raise_unpicklable() -> NoReturn:
    raise UnpicklableError


def raise_holding(size: int) -> NoReturn:
    raise ValueError(bytes(size))


@dataclass(frozen=True)
class FrozenError(Exception):
    """Refuses every attribute that is set."""


def raise_frozen() -> NoReturn:
    raise FrozenError


class FussyError(Exception):
    """Pickles, and cannot be unpickled: its constructor takes more than ``args``."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second


def raise_fussy() -> NoReturn:
    raise FussyError("one", "two")


initialized_with: list[Any] = []


def initialize(value: Any) -> None:
    initialized_with.append(value)


def initialized(_: object = None) -> list[Any]:
    return list(initialized_with)


def initialize_wrongly() -> NoReturn:
    raise RuntimeError("no such device")


@divvy.task("price")
def price(amount: float, *, factor: float = 1.0) -> dict[str, float]:
    return {"price": amount * factor}


@divvy.task("refuse")
def refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


@divvy.task("names")
def names(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


def make_bytes(size: int) -> bytes:
    return bytes(size)
