"""URLs of grids: several coordinators, and URLs that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from divvy import Client, errors
from divvy._addresses import MAX_ADDRESSES, Addresses
from divvy.aio import AsyncClient
from divvy.worker.cli import configure
from divvy.worker.service import Worker as WorkerService

from . import functions
from .helpers import DEADLINE, Coordinator, Worker, dead_url, executing


def test_a_list_of_urls_is_split_and_asked_in_turn() -> None:
    addresses = Addresses(" http://one:1/ , https://two/path/,http://[::1]:3")
    assert [(each.url, each.host, each.port, each.prefix) for each in addresses.all] == [
        ("http://one:1", "one", 1, ""),
        ("https://two/path", "two", 443, "/path"),
        ("http://[::1]:3", "::1", 3, ""),
    ]
    first = addresses.current
    addresses.move_on(first)
    # Another thread saw the same failure.
    addresses.move_on(first)
    assert addresses.current.host == "two"
    addresses.move_on(addresses.current)
    addresses.move_on(addresses.current)
    assert addresses.current == first
    for wrong in ("", " , ", ",".join(["http://host"] * (MAX_ADDRESSES + 1))):
        with pytest.raises(ValueError, match=f"1 to {MAX_ADDRESSES} URLs"):
            Addresses(wrong)


@pytest.mark.parametrize("url", ["http://user:secret@host", "https://secret@host:1", "ftp://a:secret@host/?q=1"])
def test_a_url_with_a_password_is_refused_without_showing_it(url: str) -> None:
    for make in (Client, AsyncClient, lambda url: WorkerService(configure(["--coordinator", url, "--slots", "1"]))):
        with pytest.raises(ValueError, match="must not have a user or a password") as refused:
            make(url)
        assert "secret" not in str(refused.value)


def test_a_coordinator_of_a_list_that_does_not_answer_is_passed_over(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    dead = dead_url()
    options = ["--coordinator", f"{dead},{coordinator.internal_url}", "--import", "tests.functions"]
    start(Worker, coordinator, *options, slots=1).ready()
    urls = f"{dead},{coordinator.url}"
    # Without time to try again: the second address is asked at once.
    with Client(urls, retry_for=0.0) as client:
        assert client.stats()["jobs"] == {}
        # Not safe to repeat, and sent once: it was refused where it could not arrive.
        assert client.call("price", 1).wait(DEADLINE).state == "succeeded"
    with Client(urls) as client, executing(client) as executor:
        assert executor.submit(functions.double, 2).result(DEADLINE) == 4

    async def ask() -> Any:
        async with AsyncClient(urls, retry_for=0.0) as client:
            job = await client.call("price", 2)
            return await (await job).result()

    assert asyncio.run(ask()) == {"tasks": [{"price": 2.0}]}


def test_when_no_coordinator_of_a_list_answers_the_error_names_one() -> None:
    urls = f"{dead_url()},{dead_url()}"
    with (
        Client(urls, retry_for=0.2) as client,
        pytest.raises(errors.GridUnreachable, match=r"http://127\.\d+\.\d+\.\d+:9 "),
    ):
        client.stats()
