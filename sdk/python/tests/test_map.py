"""``map``, as the standard library documents it."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, GridExecutor, errors

from . import functions
from .helpers import DEADLINE, TIMED_OUT, Coordinator, eventually, executing, jobs_of


def test_results_come_in_order_and_end_with_the_shortest_iterable(executor: GridExecutor) -> None:
    assert list(executor.map(pow, range(10), range(2, 8))) == list(map(pow, range(10), range(2, 8)))
    assert list(executor.map(functions.double, [])) == []


def test_chunks_change_nothing_but_the_number_of_tasks(executor: GridExecutor) -> None:
    expected = list(map(pow, range(40), range(40)))
    for chunksize in (1, 6, 50):
        assert list(executor.map(pow, range(40), range(40), chunksize=chunksize)) == expected
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(functions.double, range(3), chunksize=-1)


@pytest.mark.parametrize("chunksize", [1, 2, 10])
def test_an_exception_is_raised_where_its_result_would_come(executor: GridExecutor, chunksize: int) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5], chunksize=chunksize)
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError) as raised:
        next(results)
    assert isinstance(raised.value.__cause__, errors.RemoteTraceback)
    with pytest.raises(StopIteration):
        next(results)


def test_the_time_of_a_map_runs_from_its_call(executor: GridExecutor, tmp_path: Path) -> None:
    names = [str(tmp_path / "go")] * 2
    results: list[int | str] = []
    with pytest.raises(TIMED_OUT):
        results.extend(
            executor.map(functions.touch_and_wait, [str(tmp_path / "a"), str(tmp_path / "b")], names, timeout=0.3)
        )
    assert results == []
    (tmp_path / "go").touch()


def test_a_process_unpickles_the_function_of_a_map_once(executor: GridExecutor, tmp_path: Path) -> None:
    function = functions.CountedAtUnpickle(str(tmp_path))
    assert list(executor.map(function, range(40))) == [2 * value for value in range(40)]
    processes = [path.name.partition("-")[2] for path in tmp_path.iterdir()]
    assert 1 <= len(processes) == len(set(processes)) <= 2


def test_iterables_are_read_at_once_without_a_buffer(executor: GridExecutor) -> None:
    source = iter(range(5))
    results = executor.map(functions.double, source)
    assert next(source, None) is None
    assert list(results) == [0, 2, 4, 6, 8]


def test_a_buffer_bounds_what_is_read_ahead(executor: GridExecutor) -> None:
    source = iter(range(10))
    results = executor.map(functions.double, source, buffersize=3)
    assert next(source) == 3
    assert next(results) == 0
    # One was read for the result that was taken.
    assert next(source) == 5
    assert list(results) == [2, 4, 8, 12, 14, 16, 18]


def test_a_buffer_takes_endless_iterables(executor: GridExecutor) -> None:
    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    results = executor.map(functions.double, endless(), buffersize=4)
    assert [next(results) for _ in range(20)] == [2 * number for number in range(20)]


def test_a_map_with_a_buffer_comes_to_its_end_although_nobody_holds_its_executor(grid: Coordinator) -> None:
    results = GridExecutor(grid.url).map(functions.double, range(20), buffersize=2)
    gc.collect()
    assert list(results) == [2 * number for number in range(20)]


@pytest.mark.parametrize(
    ("buffersize", "error"), [("8", TypeError), (3.5, TypeError), (0, ValueError), (-1, ValueError)]
)
def test_a_wrong_buffer_is_refused(executor: GridExecutor, buffersize: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="buffersize"):
        executor.map(functions.double, range(3), buffersize=buffersize)


def test_a_map_that_is_given_up_cancels_what_waits(grid: Coordinator, tmp_path: Path) -> None:
    with executing(grid.url) as executor:
        results = executor.map(functions.count_call, [str(tmp_path)] * 500, [0.01] * 500, buffersize=50)
        next(results)
        results.close()  # type: ignore[attr-defined]
    assert len(list(tmp_path.iterdir())) < 500


def test_what_cannot_be_pickled_fails_in_map(executor: GridExecutor) -> None:
    with pytest.raises(errors.NotPicklable):
        executor.map(functions.capture, [threading.Lock()])


@pytest.mark.parametrize("buffersize", [None, 2])
def test_what_an_iterable_raises_comes_out_as_it_is(executor: GridExecutor, buffersize: int | None) -> None:
    def failing() -> Iterator[int]:
        yield from range(5)
        raise LookupError("no more of them")

    with pytest.raises(LookupError, match="no more of them"):
        list(executor.map(functions.double, failing(), buffersize=buffersize))


def test_what_cannot_be_pickled_beyond_the_buffer_is_named(executor: GridExecutor) -> None:
    results = executor.map(functions.capture, [1, 2, threading.Lock(), 4], buffersize=2)
    with pytest.raises(errors.NotPicklable, match="lock"):
        list(results)


def test_calls_of_a_map_whose_input_fails_are_canceled(grid: Coordinator, client: Client) -> None:
    nowhere: Any = {"labels": {"gpu": "no worker has this"}}

    def failing() -> Iterator[int]:
        yield from range(500)
        raise LookupError

    with executing(grid.url, requires=nowhere) as executor, pytest.raises(LookupError):
        executor.map(functions.double, failing())
    # The shutdown would wait for ever for calls that no worker can run.
    assert all(job.is_over for job in jobs_of(client, executor.id))


@pytest.mark.parametrize("chunksize", [1, 10])
def test_results_that_were_taken_are_not_kept_alive(executor: GridExecutor, chunksize: int) -> None:
    class Marked:
        """Something that can be referred to weakly."""

    results = executor.map(lambda _: Marked(), range(20), chunksize=chunksize)
    for _ in range(20):
        taken = weakref.ref(next(results))
        eventually("it is gone", lambda taken=taken: gc.collect() is not None and taken() is None)  # type: ignore[misc]


def test_calls_of_a_map_run_at_the_same_time(executor: GridExecutor, tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a", "b")]
    assert list(executor.map(functions.touch_and_wait, names, names[::-1], timeout=DEADLINE)) == names[::-1]


def test_a_hundred_thousand_items_take_constant_memory(executor: GridExecutor) -> None:
    count, seen = 100_000, 0
    warm_up = sum(1 for _ in executor.map(functions.double, range(5_000), chunksize=50, buffersize=40))
    assert warm_up == 5_000
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for number, value in enumerate(executor.map(functions.double, range(count), chunksize=50, buffersize=40)):
            assert value == 2 * number
            seen += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == count
    # All results alone would take more than 3 MB, and their tasks many times that.
    assert peak - before < 2_000_000
