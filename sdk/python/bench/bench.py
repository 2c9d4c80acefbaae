"""Calls a second of an empty function: this grid, ``ProcessPoolExecutor`` and Dask's ``LocalCluster``, two slots each.

    python bench/bench.py --coordinator ../../target/release/divvy-coordinator

The contenders take turns, round by round; a ratio is the median of the rounds' ratios with the least and the greatest.
Each has run before it is measured. Needs ``distributed`` from PyPI; with ``--no-dask`` Dask is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from divvy import GridExecutor

SLOTS = 2
ITEMS = 10_000

Contender = Callable[[], float]


def empty(_: int) -> None:
    """The work."""


@contextmanager
def grid(binary: str) -> Iterator[GridExecutor]:
    """A coordinator and a Python worker as processes, and an executor on them."""
    with tempfile.TemporaryDirectory() as data, ExitStack() as stack:
        variables = {
            "DIVVY_DATA_DIR": data,
            "DIVVY_PUBLIC_ADDR": "127.0.0.1:0",
            "DIVVY_INTERNAL_ADDR": "127.0.0.1:0",
            "DIVVY_LOG_FORMAT": "json",
        }
        coordinator = start(stack, [binary], variables)
        public, internal = addresses(coordinator)
        command = [sys.executable, "-m", "divvy.worker", "--coordinator", internal, "--slots", str(SLOTS)]
        start(stack, command, {"DIVVY_LOG": "warning"})
        yield stack.enter_context(GridExecutor(public))


def start(stack: ExitStack, command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    """A process that ends with the stack."""
    process = subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True)
    stack.callback(end, process)
    return process


def end(process: subprocess.Popen[str]) -> None:
    """Stops a process; it may take its time, but not for ever."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def addresses(coordinator: subprocess.Popen[str]) -> tuple[str, str]:
    """The URLs that a coordinator says it serves."""
    import json

    assert coordinator.stderr is not None
    for line in coordinator.stderr:
        said = json.loads(line)
        if said.get("message") == "serving":
            return f"http://{said['public']}", f"http://{said['internal']}"
    raise SystemExit("the coordinator does not serve")


def timed(run: Callable[[], Any]) -> float:
    """Seconds that a run takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def contenders(stack: ExitStack, binary: str, *, with_dask: bool) -> dict[str, Contender]:
    """Everything that is measured, ready to run."""
    executor = stack.enter_context(grid(binary))
    pool = stack.enter_context(ProcessPoolExecutor(SLOTS))
    made: dict[str, Contender] = {
        "GridExecutor, chunksize 100": lambda: timed(lambda: list(executor.map(empty, range(ITEMS), chunksize=100))),
        "ProcessPoolExecutor, chunksize 100": lambda: timed(lambda: list(pool.map(empty, range(ITEMS), chunksize=100))),
        "GridExecutor, chunksize 1": lambda: timed(lambda: list(executor.map(empty, range(ITEMS)))),
        "ProcessPoolExecutor, chunksize 1": lambda: timed(lambda: list(pool.map(empty, range(ITEMS)))),
    }
    if with_dask:
        import distributed

        cluster = stack.enter_context(
            distributed.LocalCluster(n_workers=SLOTS, threads_per_worker=1, dashboard_address=None)
        )
        client = stack.enter_context(distributed.Client(cluster))
        made["Dask, one task an item"] = lambda: timed(
            lambda: client.gather(client.map(empty, range(ITEMS), pure=False))
        )
        made["Dask, batch_size 100"] = lambda: timed(
            lambda: client.gather(client.map(empty, range(ITEMS), pure=False, batch_size=100))
        )
    return made


def ratio(times: dict[str, list[float]], ours: str, other: str) -> str:
    """How many times the other's rate ours is."""
    each = [theirs / mine for mine, theirs in zip(times[ours], times[other], strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f})"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[3] / "target" / "release" / "divvy-coordinator"
    parser.add_argument("--coordinator", default=str(default))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-dask", action="store_true")
    parser.add_argument("--only", default="", metavar="TEXT", help="contenders whose name has this in it")
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        made = contenders(stack, options.coordinator, with_dask=not options.no_dask)
        measured = {name: run for name, run in made.items() if options.only in name}
        for number in range(options.rounds + 1):
            for name, run in measured.items():
                seconds = run()
                print(f"round {number}, {name}: {1000 * seconds:.1f} ms", file=sys.stderr)
                if number > 0:
                    times.setdefault(name, []).append(seconds)
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {options.rounds} rounds, map over {ITEMS} items\n"
    )
    print("| contender | ms, median (min–max) | items a second |\n|---|---|---|")
    for name, each in times.items():
        median = statistics.median(each)
        spread = f"{1000 * median:.1f} ({1000 * min(each):.1f}–{1000 * max(each):.1f})"
        print(f"| {name} | {spread} | {ITEMS / median:,.0f} |")
    print("\n| our rate | against | ratio (min–max) | goal |\n|---|---|---|---|")
    goals = [
        ("GridExecutor, chunksize 100", "ProcessPoolExecutor, chunksize 100", "≥ 0.5"),
        ("GridExecutor, chunksize 1", "Dask, one task an item", "> 1"),
        ("GridExecutor, chunksize 100", "Dask, batch_size 100", "> 1"),
    ]
    for ours, other, goal in goals:
        if ours in times and other in times:
            print(f"| {ours} | {other} | {ratio(times, ours, other)} | {goal} |")


if __name__ == "__main__":
    main()
