"""``divvy-python-worker``: options, logs, signals."""

from __future__ import annotations

import argparse
import ctypes
import importlib
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .._token import TokenFile
from .._version import __version__
from ..calls import OWN_LABELS, words_of
from ..registry import registered
from .service import Config, Worker, WorkerFailed
from .slot import leave_resource_tracker
from .variables import unknown_variables

log = logging.getLogger("divvy.worker")

MAX_SLOTS = 1024

#: The largest size: 8 EiB less one byte, as the system counts.
MAX_BYTES = 2**63 - 1

#: The longest drain: a week.
MAX_SECONDS = 7 * 24 * 3600.0

#: A SIGTERM that comes so soon after another one, in seconds, tells of the same stop.
SAME_STOP = 2.0

PR_SET_DUMPABLE = 4

TOKEN, TOKEN_FILE = "DIVVY_WORKER_TOKEN", "DIVVY_WORKER_TOKEN_FILE"

#: The grid takes so many labels of a worker.
MAX_LABELS = 32

VARIABLES = (
    "Variables of the environment: DIVVY_COORDINATOR, DIVVY_SLOTS, DIVVY_WORKER_ID and DIVVY_DRAIN_TIMEOUT_MS stand "
    "for --coordinator, --slots, --name and --drain-timeout; DIVVY_WORKER_TOKEN, or the file DIVVY_WORKER_TOKEN_FILE, "
    "is the token that the coordinators demand; DIVVY_CA_FILE, DIVVY_TLS_SERVER_NAME, DIVVY_CLIENT_CERT and "
    "DIVVY_CLIENT_KEY are the TLS of https:// URLs; DIVVY_LOG is debug, info, warning or error. An empty variable "
    "counts as unset."
)

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="divvy-python-worker",
        description="Runs Python functions for a divvy grid. Functions are code of the grid's clients: "
        "whoever has a token with the rights 'submit' and 'programs' runs what they like here.",
        epilog=VARIABLES,
    )
    add = made.add_argument
    add(
        "--coordinator",
        metavar="URLS",
        default=os.environ.get("DIVVY_COORDINATOR") or "http://127.0.0.1:8081",
        help="the coordinators' internal URLs, with commas between [%(default)s]",
    )
    add("--slots", type=int, default=_from_env("DIVVY_SLOTS", None), help="processes [default: the cores it may use]")
    add(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module with @divvy.task functions",
    )
    add("--name", default=os.environ.get("DIVVY_WORKER_ID") or None, help="its name at the grid")
    add(
        "--label",
        dest="labels",
        type=label,
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="what jobs can require; may be repeated",
    )
    add("--no-functions", action="store_true", help="run named tasks only, no code that clients send")
    add(
        "--memory-per-slot", type=memory, metavar="SIZE", help="such as 512MiB; a call that needs more gets MemoryError"
    )
    add(
        "--drain-timeout",
        type=seconds,
        metavar="SECONDS",
        default=(_from_env("DIVVY_DRAIN_TIMEOUT_MS", 10000) or 0) / 1000,
        help="for what runs at SIGTERM, Ctrl-C and SIGHUP [%(default)s]",
    )
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return made


def memory(text: str) -> int:
    """Bytes, as a number with KiB, MiB or GiB."""
    match = re.fullmatch(r"([0-9]{1,18})([KMG]iB)?", text)
    size = int(match[1]) * _UNITS[match[2] or ""] if match is not None else 0
    if not 0 < size <= MAX_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512MiB")
    return size


def seconds(text: str) -> float:
    """A time of at most a week."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"give seconds from 0 to {MAX_SECONDS:.0f}, not {text!r}")
    return value


def label(text: str) -> tuple[str, str]:
    """A label as ``KEY=VALUE`` or ``KEY:VALUE``: the first of either character ends the key."""
    match = re.fullmatch(r"([^=:]+)[=:](.*)", text, re.DOTALL)
    if match is None:
        raise argparse.ArgumentTypeError(f"give KEY=VALUE or KEY:VALUE, not {text!r}")
    return match[1], match[2]


def configure(arguments: Sequence[str] | None) -> Config:
    """The worker's configuration; wrong usage ends the process with status 2."""
    made = parser()
    options = made.parse_args(arguments)
    slots = available_cores() if options.slots is None else options.slots
    if not 1 <= slots <= MAX_SLOTS:
        made.error(f"--slots must be from 1 to {MAX_SLOTS}")
    labels = dict(options.labels)
    if len(labels) < len(options.labels):
        made.error("--label gives a key twice: give each once")
    labels = {key: value for key, value in labels.items() if value}
    sys.path.insert(0, os.getcwd())
    for module in options.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            made.error(f"--import {module}: {error}")
        except Exception as error:
            log.exception("--import %s", module)
            made.error(f"--import {module}: {type(error).__name__}: {words_of(error)}")
    if len(labels) + len(registered()) + OWN_LABELS > MAX_LABELS:
        made.error(f"labels and named tasks together must be at most {MAX_LABELS - OWN_LABELS}")
    return Config(
        coordinator=options.coordinator,
        worker_id=options.name or default_name(),
        slots=slots,
        token=token_from_env(),
        labels=labels,
        modules=tuple(options.modules),
        takes_functions=not options.no_functions,
        max_memory_bytes=options.memory_per_slot,
        memory_bytes=available_memory(),
        drain_timeout=options.drain_timeout,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a worker until SIGTERM, Ctrl-C or the end of its terminal."""
    level = os.environ.get("DIVVY_LOG") or "info"
    is_level = level.upper() in ("DEBUG", "INFO", "WARNING", "ERROR")
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper() if is_level else "INFO",
        format="%(asctime)s %(levelname)s %(message)s",
    )
    try:
        config = configure(arguments)
        if not is_level:
            # Other programs of the grid take filters, and one variable may be set for all of them.
            log.warning("DIVVY_LOG is %r: this worker takes debug, info, warning or error, and takes it as info", level)
        for name in unknown_variables(os.environ):
            log.warning("no program reads the variable %s: it has no effect", name)
        hide_token()
        worker = Worker(config)
    except ValueError as error:
        sys.exit(f"error: {error}")
    handler = stopping(worker.stop)
    for number in signals_to_stop_at():
        signal.signal(number, handler)
    try:
        worker.run()
    except WorkerFailed as error:
        sys.exit(f"error: {error}")
    finally:
        leave_resource_tracker()


def signals_to_stop_at() -> list[signal.Signals]:
    """SIGTERM, SIGINT, and SIGHUP unless it is ignored, as by ``nohup``."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if is_ignored else [signal.SIGHUP])]


def stopping(stop: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> Callable[[int, object], None]:
    """A handler of signals that calls ``stop``, once for SIGTERMs of the same stop.

    Systemd sends one to all processes of a unit, and ``divvy up``, which is one of these, another to its workers.
    """
    terminated_at = -SAME_STOP

    def handle(number: int, _: object) -> None:
        nonlocal terminated_at
        if number == signal.SIGTERM:
            if clock() - terminated_at < SAME_STOP:
                return
            terminated_at = clock()
        stop()

    return handle


def token_from_env() -> str | TokenFile | None:
    """The token of the file that is named, else the shared one. ``ValueError`` if the file has none."""
    file = os.environ.get(TOKEN_FILE)
    if not file:
        return os.environ.get(TOKEN) or None
    try:
        return TokenFile(file)
    except ValueError as error:
        raise ValueError(f"{TOKEN_FILE}: {error}") from error


def hide_token() -> None:
    """Keeps the worker token from calls: out of their environment, and out of what others see of this process."""
    for name in (TOKEN, TOKEN_FILE):
        os.environ.pop(name, None)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)


def _from_env(name: str, default: int | None) -> int | None:
    text = os.environ.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} is not valid: it must be a whole number, but is {text!r}")
    return int(text)


def default_name() -> str:
    """A name that no other worker has: the pod's address, else the host's name and the process."""
    pod = os.environ.get("POD_IP")
    if pod:
        return "python-" + re.sub(r"[^A-Za-z0-9]", "-", pod)
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:80]
    return f"python-{host}-{os.getpid()}"


def available_cores() -> int:
    """Cores that this process may use, by its affinity and its cgroup."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    return max(1, cores)


def available_memory() -> int:
    """Bytes of memory that this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total
