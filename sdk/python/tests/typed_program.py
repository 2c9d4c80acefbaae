"""A program for a user's type checker: check.sh checks it with the wheel that it has built."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, Future, as_completed
from typing import Any

from typing_extensions import assert_type

import divvy
from divvy import AsyncClient, Client, GridExecutor, Job, JobEvent


def half(value: int) -> float:
    return value / 2


@divvy.task("describe")
def describe(value: float, *, unit: str = "") -> str:
    return f"{value} {unit}"


def calls(url: str) -> None:
    with GridExecutor(url, priority=7, tags={"desk": "rates"}) as grid:
        assert_type(grid, GridExecutor)
        executor: Executor = grid
        future = grid.submit(half, 3)
        assert_type(future, Future[float])
        assert_type(future.result(), float)
        assert_type(grid.map(half, [1, 2], chunksize=2, buffersize=4), Iterator[float])
        for done in as_completed([executor.submit(half, 1)]):
            assert_type(done.result(), float)
        for each in divvy.as_completed([future]):
            assert_type(each, Future[float])


def jobs(url: str) -> None:
    with Client(url) as client:
        job = client.submit("sum-of-primes", {"a": 1, "b": 100}, priority=7)
        assert_type(job, Job)
        assert_type(job.wait().progress["fraction"], float)
        for event in client.events(job.id):
            assert_type(event, JobEvent)
            assert_type(event["seq"], int)
        future: Future[int] = Future()
        for each in divvy.as_completed([job]):
            assert_type(each, Job)
        for either in divvy.as_completed([job, future]):
            assert_type(either, Job | Future[Any])
        assert_type(client.skip(job.id, [1]), list[int])
        assert_type(describe(1.0, unit="m"), str)


async def waits(url: str) -> str:
    async with AsyncClient(url) as client:
        job = await client.call("describe", 1.0, unit="m")
        return (await job).state


def main() -> None:
    calls("http://localhost:8080")
    jobs("http://localhost:8080")
    asyncio.run(waits("http://localhost:8080"))
