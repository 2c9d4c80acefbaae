"""``AsyncClient``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from divvy import AsyncClient, AsyncJob, Client, Job, errors

from .helpers import DEADLINE, Coordinator, Worker, eventually
from .programs import run_program

NOWHERE: Any = {"labels": {"gpu": "no worker has this"}}


def run(test: Coroutine[Any, Any, None]) -> None:
    # A test may wait several times.
    asyncio.run(asyncio.wait_for(test, 5 * DEADLINE))


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


def test_closing_ends_what_waits_with_a_named_error(grid: Coordinator) -> None:
    async def test() -> None:
        client = AsyncClient(grid.url)
        never = await client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
        waiting = [asyncio.create_task(wait) for wait in (never.wait(), never.result(), next_of(client.events()))]
        # The stream of what waits for the job, and the one that is read.
        await asyncio.to_thread(eventually, "both are open", lambda: len(client._streams) == 2)
        await client.close()
        for task in waiting:
            with pytest.raises(errors.ClientClosed):
                await task
        with pytest.raises(errors.ClientClosed):
            await client.stats()
        with pytest.raises(errors.ClientClosed):
            await never.wait()
        await client.close()
        async with AsyncClient(grid.url) as other:
            assert (await other.cancel(never.id)).state == "canceled"

    run(test())


async def next_of(events: Any) -> Any:
    return await anext(events)


def test_a_close_that_is_canceled_says_so(grid: Coordinator) -> None:
    async def test() -> None:
        client = AsyncClient(grid.url)
        ended = asyncio.Event()

        async def stubborn() -> None:
            try:
                await asyncio.sleep(DEADLINE)
            finally:
                await asyncio.shield(ended.wait())

        client._follower = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        ended.set()
        await client.close()

    run(test())


def test_a_job_is_waited_for_no_longer_than_asked_while_the_grid_is_away(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)

    async def test() -> None:
        async with AsyncClient(coordinator.url, retry_for=10 * DEADLINE) as client:
            job = await client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
            coordinator.kill()
            with pytest.raises(TimeoutError, match="was queued when the grid was last there"):
                await job.wait(0.2)

    run(test())


def public(kind: type[Any]) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_async_client_has_all_that_the_client_has(grid: Coordinator) -> None:
    assert public(Client) - public(AsyncClient) == set()
    assert public(Job) - public(AsyncJob) == set()

    async def test() -> None:
        async with AsyncClient(grid.url) as client:
            job = await client.submit("sleep", {"seconds": 1}, requires=NOWHERE, output="nothing-yet")
            assert (job.kind, job.error, job.progress["fraction"]) == ("sleep", None, 0.0)
            assert (await job.pause()).state == "paused"
            assert (await client.resume(job.id)).state == "queued"
            assert await job.explain() == await client.explain(job.id)
            with pytest.raises(errors.Conflict):
                await client.result(job.id, wait=0.1)
            with pytest.raises(errors.NotFound):
                await client.named_result("nothing-yet")
            assert isinstance(await client.workers(), list)
            assert (await client.cancel_all(kind="sleep", state="queued"))["changed"] >= 1
            failed = await (await client.call_each("refuse", [["no"]], max_attempts=1))
            assert (failed.state, failed.error) == ("failed", "its only task failed")
            # No worker can end this one again before the answer is there.
            assert (await job.retry()).state == "queued"
            await job.cancel()

    run(test())


def test_a_client_that_is_kept_open_serves_one_loop_after_the_other(grid: Coordinator) -> None:
    # In a process of its own: connections of a loop that was closed are dropped, which warns where warnings are shown.
    program = """
import asyncio
from divvy import AsyncClient
client = AsyncClient()
async def use():
    job = await client.call("price", 2)
    return (await job.result())["tasks"]
print([asyncio.run(use()) for _ in range(3)])
kept = asyncio.new_event_loop()
print(kept.run_until_complete(use()))
try:
    asyncio.run(use())
except RuntimeError as error:
    print(error)
kept.run_until_complete(client.close())
kept.close()
"""
    ended = run_program(grid, program)
    lines = [str([[{"price": 2.0}]] * 3), str([{"price": 2.0}])]
    lines.append("another event loop uses this AsyncClient: make a client for each loop")
    assert (ended.stdout.splitlines(), ended.stderr) == (lines, "")


def test_tokens_that_no_header_can_have_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        AsyncClient("http://localhost", token="two words")


def test_a_grid_that_is_gone_is_named(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    coordinator.kill()

    async def test() -> None:
        async with AsyncClient(coordinator.url, retry_for=0.3) as client:
            with pytest.raises(errors.GridUnreachable):
                await client.stats()

    run(test())
