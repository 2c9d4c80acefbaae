"""Calls a second of an empty function: this grid, ``ProcessPoolExecutor`` and Dask's ``LocalCluster``, two slots each.

    python bench/bench.py --coordinator ../../target/release/divvy-coordinator

This grid and one rival take turns, round by round; the next rival starts when the last one has ended. A ratio is the
median of the rounds' ratios with the least and the greatest. Each is driven by a process of its own and has run before
it is measured. What they need comes from PyPI into an environment of its own, ``target/python-bench-VERSION``; with
``--no-dask`` Dask is left out.
"""

from __future__ import annotations

import argparse
import json
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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divvy import GridExecutor

#: Packages from PyPI that the compared programs need.
NEEDS = ("cloudpickle==3.1.3", "distributed==2026.8.0")

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "sdk" / "python" / "src"
ENVIRONMENT = ROOT / "target" / f"python-bench-{sys.version_info.major}.{sys.version_info.minor}"

SLOTS = 2
ITEMS = 10_000

Contender = Callable[[], float]


def empty(_: int) -> None:
    """The work."""


@contextmanager
def grid(binary: str) -> Iterator[GridExecutor]:
    """A coordinator and a Python worker as processes, and an executor on them."""
    from divvy import GridExecutor

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


def grid_runs(stack: ExitStack, binary: str) -> dict[str, Contender]:
    """This grid."""
    executor = stack.enter_context(grid(binary))
    return {
        "GridExecutor, chunksize 100": lambda: timed(lambda: list(executor.map(empty, range(ITEMS), chunksize=100))),
        "GridExecutor, chunksize 1": lambda: timed(lambda: list(executor.map(empty, range(ITEMS)))),
    }


def pool_runs(stack: ExitStack, _: str) -> dict[str, Contender]:
    """The standard library."""
    pool = stack.enter_context(ProcessPoolExecutor(SLOTS))
    return {
        "ProcessPoolExecutor, chunksize 100": lambda: timed(lambda: list(pool.map(empty, range(ITEMS), chunksize=100))),
        "ProcessPoolExecutor, chunksize 1": lambda: timed(lambda: list(pool.map(empty, range(ITEMS)))),
    }


def dask_runs(stack: ExitStack, _: str) -> dict[str, Contender]:
    """Dask."""
    import distributed

    cluster = distributed.LocalCluster(n_workers=SLOTS, threads_per_worker=1, dashboard_address=None)
    client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))

    def run(**options: int) -> float:
        return timed(lambda: client.gather(client.map(empty, range(ITEMS), pure=False, **options)))

    return {"Dask, one task an item": run, "Dask, batch_size 100": lambda: run(batch_size=100)}


DRIVERS = {"grid": grid_runs, "pool": pool_runs, "dask": dask_runs}


def drive(name: str, binary: str) -> None:
    """Runs what stdin names and prints the seconds, in a process of its own: contenders share no interpreter lock."""
    with ExitStack() as stack:
        runs = DRIVERS[name](stack, binary)
        print(json.dumps(list(runs)), flush=True)
        for line in sys.stdin:
            print(runs[line.strip()](), flush=True)


def start_driver(stack: ExitStack, name: str, binary: str) -> dict[str, Contender]:
    """The contenders of a driver's process."""
    command = [sys.executable, __file__, "--drive", name, "--coordinator", binary]
    driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(driver.wait)
    assert driver.stdin is not None and driver.stdout is not None
    stack.callback(driver.stdin.close)
    asked, answers = driver.stdin, driver.stdout

    def run(contender: str) -> float:
        asked.write(f"{contender}\n")
        asked.flush()
        return float(answers.readline())

    contenders = answers.readline()
    if not contenders:
        sys.exit(f"the driver of {name} has ended before it was asked for anything: see its error above")
    return {contender: partial(run, contender) for contender in json.loads(contenders)}


def ratios(times: dict[str, list[float]], ours: str, other: str) -> list[float]:
    """How many times the other's rate ours is, round by round."""
    return [theirs / mine for mine, theirs in zip(times[ours], times[other], strict=True)]


def report(times: dict[str, list[float]], rounds: int) -> None:
    """Prints the tables."""
    print(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, {rounds} rounds, map over {ITEMS} items\n")
    print("| contender | ms, median (min–max) | items a second |\n|---|---|---|")
    for name, each in times.items():
        median = statistics.median(each)
        spread = f"{1000 * median:.1f} ({1000 * min(each):.1f}–{1000 * max(each):.1f})"
        print(f"| {name} | {spread} | {ITEMS / median:,.0f} |")
    print("\n| our rate | against | ratio (min–max) | goal | verdict |\n|---|---|---|---|---|")
    goals: list[tuple[str, str, str, Callable[[float], bool]]] = [
        ("GridExecutor, chunksize 100", "ProcessPoolExecutor, chunksize 100", "≥ 0.5", lambda found: found >= 0.5),
        ("GridExecutor, chunksize 1", "Dask, one task an item", "> 1", lambda found: found > 1),
        ("GridExecutor, chunksize 100", "Dask, batch_size 100", "> 1", lambda found: found > 1),
    ]
    for ours, other, goal, is_met in goals:
        if ours in times and other in times:
            each = ratios(times, ours, other)
            median = statistics.median(each)
            spread = f"{median:.2f} ({min(each):.2f}–{max(each):.2f})"
            print(f"| {ours} | {other} | {spread} | {goal} | {'met' if is_met(median) else 'MISSED'} |")


def run_in_own_environment() -> None:
    """Makes the environment where it is missing, and goes on there."""
    python = ENVIRONMENT / "bin" / "python"
    if Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    install = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*install, *NEEDS], check=True)
    os.environ["PYTHONPATH"] = str(SOURCE)
    os.execv(python, [str(python), *sys.argv])


def main() -> None:
    """Measures, or drives what another process measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT / "target" / "release" / "divvy-coordinator"
    parser.add_argument("--coordinator", default=str(default))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-dask", action="store_true")
    parser.add_argument("--only", default="", metavar="TEXT", help="contenders whose name has this in it")
    parser.add_argument("--drive", choices=list(DRIVERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    run_in_own_environment()
    if options.drive is not None:
        drive(options.drive, options.coordinator)
        return
    for rival in ["pool"] if options.no_dask else ["pool", "dask"]:
        report(compare(rival, options), options.rounds)


def compare(rival: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """The seconds of each round of this grid and of a rival."""
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        made = {k: run for name in ("grid", rival) for k, run in start_driver(stack, name, options.coordinator).items()}
        measured = {name: run for name, run in made.items() if options.only in name}
        for number in range(options.rounds + 1):
            for name, run in measured.items():
                seconds = run()
                print(f"round {number}, {name}: {1000 * seconds:.1f} ms", file=sys.stderr)
                if number > 0:
                    times.setdefault(name, []).append(seconds)
    return times


if __name__ == "__main__":
    main()
