"""``AsyncClient``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from divvy import AsyncClient, errors

from .helpers import DEADLINE, Coordinator, Worker

NOWHERE: Any = {"labels": {"gpu": "no worker has this"}}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, DEADLINE))


def test_a_job_is_awaited_and_its_result_fetched(grid: Coordinator) -> None:
    async def test() -> None:
        async with AsyncClient(grid.url) as client:
            job = await client.call("price", 20, factor=1.5)
            assert (await job).state == "succeeded"
            assert await job.result() == {"tasks": [{"price": 30.0}]}
            assert [task["result"] async for task in job.tasks()] == [{"price": 30.0}]
            assert [event["type"] async for event in job.events()][-1] == "succeeded"
            assert job.id in [found.id async for found in client.jobs(state="succeeded")]

    run(test())


def test_many_jobs_are_awaited_at_once_over_one_stream(grid: Coordinator) -> None:
    async def test() -> None:
        async with AsyncClient(grid.url) as client:
            jobs = await asyncio.gather(*(client.call("price", amount) for amount in range(30)))
            done = await asyncio.gather(*jobs)
            assert {job.state for job in done} == {"succeeded"}
            results = await asyncio.gather(*(job.result() for job in jobs))
            assert [result["tasks"][0]["price"] for result in results] == list(range(30))

    run(test())


def test_refusals_failures_and_cancels_are_named(grid: Coordinator) -> None:
    async def test() -> None:
        async with AsyncClient(grid.url) as client:
            with pytest.raises(errors.InvalidRequest):
                await client.submit("sleep", {"seconds": -1})
            failed = await client.call_each("refuse", [["no"]], max_attempts=1)
            with pytest.raises(errors.JobFailed):
                await failed.result()
            never = await client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
            with pytest.raises(TimeoutError):
                await never.wait(0.1)
            waiting = asyncio.create_task(never.result())
            await asyncio.sleep(0)
            await client.act(never.id, "cancel")
            with pytest.raises(errors.JobCanceled):
                await waiting

    run(test())


def test_waiting_and_events_go_on_over_a_restart(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)

    async def test() -> None:
        async with AsyncClient(coordinator.url) as client:
            job = await client.call("price", 3)
            waiting = asyncio.create_task(job.wait())
            events = client.events(job.id)
            assert (await anext(events))["type"] == "submitted"
            await asyncio.to_thread(coordinator.kill)
            again = await asyncio.to_thread(start, coordinator.start_again)
            await asyncio.to_thread(start, Worker, again, "--import", "tests.functions")
            assert (await waiting).state == "succeeded"
            assert [event["type"] async for event in events][-1] == "succeeded"

    run(test())


def test_a_grid_that_is_gone_is_named(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    coordinator.kill()

    async def test() -> None:
        async with AsyncClient(coordinator.url, retry_for=0.3) as client:
            with pytest.raises(errors.GridUnreachable):
                await client.stats()

    run(test())
