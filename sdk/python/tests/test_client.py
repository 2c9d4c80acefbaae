"""``Client`` and ``Job``."""

from __future__ import annotations

import io
import os
import pty
import signal
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import divvy
from divvy import Client, GridExecutor, errors
from divvy.client import new_job_id
from divvy.events import parse_events
from divvy.progress import TerminalProgress, describe, to_html

from . import functions
from .helpers import DEADLINE, Coordinator, Worker, eventually, executing
from .programs import run_program

NOWHERE: Any = {"labels": {"gpu": "no worker has this"}}


def test_a_job_is_submitted_waited_for_and_its_result_fetched(client: Client) -> None:
    job = client.call("price", 20, factor=1.5)
    assert job.kind == "tasks" and uuid.UUID(job.id).version == 7
    assert job.wait(DEADLINE) is job
    assert (job.state, job.is_over, job.progress["fraction"]) == ("succeeded", True, 1.0)
    assert job.result == {"tasks": [{"price": 30.0}]}
    assert client.job(job.id).result == job.result
    assert [task["result"] for task in job.tasks(state="succeeded")] == [{"price": 30.0}]


def test_many_calls_of_a_named_task_are_one_job(client: Client) -> None:
    job = client.call_each(
        "price", ([amount] for amount in range(50)), {"factor": 2}, tags={"desk": "rates"}, priority=7
    )
    assert job.data["priority"] == 7
    assert [task["price"] for task in job.wait(DEADLINE).result["tasks"]] == [2 * amount for amount in range(50)]
    assert job.id in [found.id for found in client.jobs(tag="desk:rates", state="succeeded", kind="tasks")]


def test_a_named_task_that_fails_fails_its_job_with_the_reason(client: Client) -> None:
    job = client.call_each("refuse", [["no such curve"]], max_attempts=1).wait(DEADLINE)
    assert job.state == "failed"
    assert [task["last_error"] for task in job.tasks(state="failed")] == ["ValueError: no such curve"]
    with pytest.raises(errors.JobFailed, match="no such curve"):
        job.result  # noqa: B018


def test_options_of_a_job_reach_the_grid(client: Client) -> None:
    id = str(new_job_id())
    options: dict[str, Any] = {
        "priority": 2,
        "tags": {"a": "b"},
        "affinity": {"key": "curve"},
        "requires": NOWHERE,
        "max_attempts": 7,
        "timeout": {"job_seconds": 60},
        "output": "nothing",
    }
    job = client.submit("sleep", {"seconds": 1, "tasks": 3}, id=id, **options)
    assert job.id == id
    assert {key: job.data[key] for key in options if key != "requires"} == {  # type: ignore[literal-required]
        key: value if key != "affinity" else {"key": "curve"} for key, value in options.items() if key != "requires"
    }
    assert client.submit("sleep", {"seconds": 1, "tasks": 3}, id=id, **options).id == id
    with pytest.raises(errors.Mismatch):
        client.submit("sleep", {"seconds": 2}, id=id)
    assert "no worker" in " ".join(job.explain()) or "none of" in " ".join(job.explain())
    assert job.pause().state == "paused"
    assert job.resume().state == "queued"
    assert job.cancel().state == "canceled" and job.cancel().is_over
    with pytest.raises(errors.JobCanceled):
        job.result  # noqa: B018


def test_a_share_of_a_job_s_leases_can_be_verified(client: Client) -> None:
    job = client.submit("sum-of-primes", {"a": 1, "b": 100}, verify=0.5, requires=NOWHERE)
    verification = job.data.get("verification")
    assert verification is not None and verification["share"] == 0.5
    job.cancel()
    with pytest.raises(errors.InvalidRequest) as invalid:
        client.submit("sum-of-primes", {"a": 1, "b": 100}, verify=2.0)
    assert invalid.value.field == "verify"


def test_the_grid_s_refusals_are_named(client: Client) -> None:
    with pytest.raises(errors.InvalidRequest) as invalid:
        client.submit("sleep", {"seconds": -1})
    assert (invalid.value.status, invalid.value.field) == (400, "params")
    with pytest.raises(errors.NotFound):
        client.job(uuid.uuid4())
    job = client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
    with pytest.raises(errors.Conflict):
        job.result  # noqa: B018
    assert client.cancel_all(kind="sleep", state=["queued", "running"])["changed"] >= 1
    with pytest.raises(errors.InvalidRequest):
        client.cancel_all()
    with pytest.raises(errors.NotFound):
        client.named_result("nothing-of-the-kind")


def test_wait_times_out_and_the_job_goes_on(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # The answer may take as long as it likes.
    monkeypatch.setattr("divvy.job.SHORTEST_TIMEOUT", DEADLINE)
    job = client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
    with pytest.raises(TimeoutError, match=f"job {job.id} is queued after 0.2 s"):
        job.wait(0.2)
    assert not job.refresh().is_over
    job.cancel()


def test_a_job_is_waited_for_no_longer_than_asked_while_the_grid_is_away(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    # Without a bound of its own a request has this time for an answer, and this time in all.
    with Client(coordinator.url, timeout=10 * DEADLINE, retry_for=10 * DEADLINE) as client:
        job = client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
        for end in (lambda: coordinator.signal(signal.SIGSTOP), coordinator.kill):
            end()
            began = time.monotonic()
            with pytest.raises(TimeoutError, match=f"job {job.id} was queued when the grid was last there"):
                job.wait(0.2)
            assert time.monotonic() - began < DEADLINE


def test_a_named_task_takes_keywords_of_any_name(client: Client) -> None:
    job = client.call("names", 1, name="a", self="b")
    assert job.wait(DEADLINE).result == {"tasks": [[[1], {"name": "a", "self": "b"}]]}


def test_a_process_without_a_stderr_waits_without_a_bar(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr("sys.stderr", stream)
        assert client.call("price", 1).wait(DEADLINE).state == "succeeded"


def test_lists_are_read_page_by_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("divvy.client.PAGE", 3)
    submitted = [client.submit("sleep", {"seconds": 1}, tags={"page": "wise"}, requires=NOWHERE).id for _ in range(8)]
    assert [job.id for job in client.jobs(tag="page:wise")] == submitted[::-1]
    client.cancel_all(tag="page:wise")


def test_events_of_a_job_come_from_its_submission_to_its_end(client: Client) -> None:
    job = client.call_each("price", [[1], [2]])
    types = [event["type"] for event in client.events(job.id)]
    assert types[0] == "submitted" and types[-1] == "succeeded"
    first, *rest = list(job.events(follow=False))
    assert [event["seq"] for event in job.events(after=first["seq"], follow=False)] == [event["seq"] for event in rest]
    assert list(job.events(after=rest[-1]["seq"])) == []


def test_events_of_all_jobs_come_as_they_happen(client: Client) -> None:
    before = client.call("price", 1).wait(DEADLINE)
    last = list(before.events(follow=False))[-1]["seq"]
    job = client.call("price", 2)
    for event in client.events(after=last):
        if event["job"] == job.id and event["type"] == "succeeded":
            break


def test_events_of_a_job_go_on_over_a_restart(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    with Client(coordinator.url) as client:
        job = client.submit("tasks", {"list": [{"divvy": 1, "task": "price", "args": [1]}]})
        events = client.events(job.id)
        assert next(events)["type"] == "submitted"
        coordinator.kill()
        again = start(coordinator.start_again)
        start(Worker, again, "--import", "tests.functions", slots=1).ready()
        assert [event["type"] for event in events][-1] == "succeeded"


def test_waiting_goes_on_over_a_restart(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    with Client(coordinator.url) as client:
        jobs = [client.call("price", amount) for amount in range(3)]
        waited: list[str] = []
        threads = [threading.Thread(target=lambda job=job: waited.append(job.wait(DEADLINE).state)) for job in jobs]
        for thread in threads:
            thread.start()
        eventually("they wait", lambda: len(client.hub._watchers) == 3)
        coordinator.kill()
        again = start(coordinator.start_again)
        start(Worker, again, "--import", "tests.functions", slots=1).ready()
        for thread in threads:
            thread.join(DEADLINE)
        assert waited == ["succeeded"] * 3


def event_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "divvy-events"}


def test_all_jobs_that_are_waited_for_share_one_stream(client: Client) -> None:
    before = event_threads()
    jobs = [client.submit("sleep", {"seconds": 1}, requires=NOWHERE) for _ in range(5)]
    threads = [threading.Thread(target=job.wait, args=(DEADLINE,)) for job in jobs]
    for thread in threads:
        thread.start()
    eventually("all are watched", lambda: len(client.hub._watchers) == 5)
    # A thread of an earlier test may end meanwhile.
    assert len(event_threads() - before) == 1
    for job in jobs:
        client.cancel(job.id)
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)


def test_as_completed_takes_jobs_and_futures(client: Client) -> None:
    with GridExecutor(client) as executor:
        never = client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
        items: list[Any] = [never, client.call("price", 1), executor.submit(functions.double, 2)]
        completed = divvy.as_completed(items, timeout=DEADLINE)
        assert {id(next(completed)), id(next(completed))} == {id(items[1]), id(items[2])}
        never.cancel()
        assert list(completed) == [never]
        assert list(divvy.as_completed([])) == []


def test_a_coordinator_that_is_away_is_waited_for_and_then_named(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    with Client(coordinator.url, retry_for=0.5) as client:
        assert client.stats()["jobs"] == {}
        coordinator.kill()
        with pytest.raises(errors.GridUnreachable):
            client.stats()
    with Client(coordinator.url) as client:
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(client.stats()))
        asking.start()
        start(coordinator.start_again)
        asking.join(DEADLINE)
        assert len(answers) == 1


def test_wrong_urls_and_tokens_are_refused_at_once() -> None:
    for url in ("localhost:8080", "ftp://host", "http://", "http://host/?a=b"):
        with pytest.raises(ValueError, match="is not an http"):
            Client(url)
    with pytest.raises(ValueError, match="visible ASCII"):
        Client("http://localhost", token="two words")


def test_url_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIVVY_URL", "http://grid.example:1234/")
    monkeypatch.setenv("DIVVY_TOKEN", "secret")
    with Client() as client:
        assert client.url == "http://grid.example:1234"
        assert client.transport._headers["Authorization"] == "Bearer secret"


def test_a_worker_needs_the_token_of_its_grid(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator, DIVVY_WORKER_TOKEN="secret")
    stranger = start(Worker, coordinator, slots=1).ready()
    stranger.logged("HTTP 401")
    start(Worker, coordinator, slots=1, DIVVY_WORKER_TOKEN="secret").ready()
    with executing(coordinator.url) as executor:
        assert executor.submit(functions.double, 2).result(DEADLINE) == 4
        # No call can show it to others.
        assert executor.submit(functions.variable, "DIVVY_WORKER_TOKEN").result(DEADLINE) is None


def test_a_terminal_shows_a_bar_without_being_asked(grid: Coordinator) -> None:
    program = """
from divvy import Client
with Client() as client:
    client.call_each("price", [[amount] for amount in range(20)]).wait()
"""
    ours, terminal = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        try:
            ended = run_program(grid, program, stderr=terminal)
        finally:
            os.close(terminal)
        shown = b""
        # A terminal that nobody writes to any more ends with an error.
        with suppress(OSError):
            while piece := screen.read(65536):
                shown += piece
    assert (ended.returncode, ended.stdout) == (0, "")
    assert shown.startswith(b"\r[") and b"tasks succeeded, 100 %, 20 of 20 tasks" in shown


def test_the_progress_of_a_job_is_a_line_on_a_terminal(client: Client) -> None:
    stream = io.StringIO()
    job = client.call_each("price", [[amount] for amount in range(20)])
    job.wait(DEADLINE, progress=TerminalProgress(stream))
    last = stream.getvalue().rstrip("\n").rsplit("\r", 1)[-1]
    assert last.startswith("[####") and "tasks succeeded, 100 %, 20 of 20 tasks" in last
    assert stream.getvalue().endswith("\n")


def test_progress_as_html_says_the_state_in_words_and_escapes(client: Client) -> None:
    job = client.submit("sleep", {"seconds": 1, "tasks": 4}, requires=NOWHERE)
    shown = {**job.refresh().data, "notice": "<script>"}
    text = to_html(shown)  # type: ignore[arg-type]
    assert "sleep queued, 0 %, 0 of 4 tasks (&lt;script&gt;)" in text and "<script>" not in text
    assert describe(job.cancel().data).startswith("sleep canceled")


def test_events_are_parsed_as_the_standard_has_it() -> None:
    head, tail = 'data: {"seq": 3,', 'data: "job": "a", "type": "started"}'
    event = {"seq": 3, "job": "a", "type": "started"}
    lines = [": keep-alive", "id: 3", "event: started", head, tail, "", f"data:{head[6:]}", f"data:{tail[6:]}", ""]
    assert list(parse_events(lines)) == [None, event, event]


def test_a_place_beyond_the_end_is_warned_about_and_the_stream_goes_on(client: Client) -> None:
    job = client.submit("sleep", {"seconds": 1, "tasks": 4}, requires=NOWHERE).cancel()
    with pytest.warns(RuntimeWarning, match="does not have the events after 9000000"):
        types = [event["type"] for event in job.events(after=9_000_000)]
    assert types == ["submitted", "canceled"]


def test_ids_sort_by_time() -> None:
    ids = [new_job_id() for _ in range(3)]
    assert all((id.version, id.variant) == (7, uuid.RFC_4122) for id in ids)
    assert len(set(ids)) == 3


def test_as_completed_waits_no_longer_than_asked_while_the_grid_is_away(start: Callable[..., Any]) -> None:
    coordinator = start(Coordinator)
    with Client(coordinator.url, retry_for=10 * DEADLINE) as client:
        job = client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
        coordinator.kill()
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="1 job or future is not done"):
            list(divvy.as_completed([job], timeout=0.2))
        assert time.monotonic() - began < DEADLINE


def test_closing_a_client_ends_its_streams_with_a_named_error(grid: Coordinator) -> None:
    client = Client(grid.url)
    job = client.submit("sleep", {"seconds": 1}, requires=NOWHERE)
    events = client.events(job.id)
    assert next(events)["type"] == "submitted"
    ended: list[BaseException] = []

    def follow() -> None:
        try:
            next(events)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    client.close()
    thread.join(DEADLINE)
    assert [type(error) for error in ended] == [errors.ClientClosed]
    with Client(grid.url) as other:
        other.cancel(job.id)


def test_closing_a_client_leaves_futures_that_are_done(grid: Coordinator) -> None:
    client = Client(grid.url)
    executor = GridExecutor(client)
    future = executor.submit(functions.double, 21)
    assert future.result(DEADLINE) == 42
    executor.shutdown()
    client.close()
    assert future.result(0) == 42 and not future.cancelled()
