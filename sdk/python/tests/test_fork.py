"""Processes that are forked from one that uses the grid."""

from __future__ import annotations

from pathlib import Path

from . import functions
from .helpers import DEADLINE, Coordinator, eventually, read
from .programs import run_program

#: The start of each program: an executor with a call that runs, and a client whose connections are open.
BEGIN = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from divvy import Client, GridExecutor, errors
from tests import functions
def in_child(use):
    child = os.fork()
    if child == 0:
        try:
            use()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
client = Client()
executor = GridExecutor(client)
assert executor.submit(functions.double, 1).result(60) == 2
"""


def test_a_forked_child_uses_client_and_executor_and_the_parents_calls_go_on(grid: Coordinator, tmp_path: Path) -> None:
    runs, go = tmp_path / "runs", tmp_path / "go"
    program = f"""{BEGIN}
running = executor.submit(functions.touch_and_wait, {str(runs)!r}, {str(go)!r})
running.add_done_callback(lambda _: print("called", flush=True))
while not running.running():
    time.sleep(0.01)
def use():
    assert isinstance(running.exception(60), errors.BrokenGridExecutor), running
    assert client.stats()["jobs"] is not None
    assert executor.submit(functions.double, 2).result(60) == 4
    assert list(executor.map(functions.double, range(5))) == [0, 2, 4, 6, 8]
    client.call("price", 1).wait(60)
    executor.shutdown()
    client.close()
assert in_child(use) == 0
open({str(go)!r}, "w").close()
print(running.result(60) == {str(go)!r}, executor.submit(functions.double, 3).result(60))
"""
    ended = run_program(grid, program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "called\nTrue 6\n", "")


def test_a_child_that_is_forked_while_threads_hold_every_lock_hangs_nowhere(grid: Coordinator) -> None:
    program = f"""{BEGIN}
stop = threading.Event()
def busy():
    while not stop.is_set():
        executor.submit(functions.double, 1).cancel()
        time.sleep(0.001)
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()
ended = [in_child(lambda: executor.submit(functions.double, 2).result(60)) for _ in range(10)]
stop.set()
for thread in threads:
    thread.join()
print(ended)
"""
    ended = run_program(grid, program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{[0] * 10}\n", "")


def test_no_thread_of_an_executor_imports_anything_so_that_no_fork_meets_it_there(grid: Coordinator) -> None:
    program = """
import sys
from divvy import GridExecutor
with GridExecutor() as executor:
    before = set(sys.modules)
    assert executor.submit(abs, -1).result(60) == 1
    assert list(executor.map(abs, range(10), chunksize=3)) == list(range(10))
    assert isinstance(executor.submit(int, "x").exception(60), ValueError)
print(sorted(set(sys.modules) - before))
"""
    ended = run_program(grid, program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")


def test_a_call_that_forks_answers_once(grid: Coordinator, tmp_path: Path) -> None:
    from divvy import GridExecutor

    with GridExecutor(grid.url) as executor:
        assert executor.submit(functions.fork_and_return, str(tmp_path / "child")).result(DEADLINE) == "parent"
        eventually("the child ran", lambda: read(tmp_path / "child"))
        assert list(executor.map(functions.double, range(20))) == [2 * value for value in range(20)]
