"""``Client``: submits jobs, follows them and changes them."""

from __future__ import annotations

import json
import os
import ssl
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ._trace import trace_headers
from ._transport import FIRST_PAUSE, LONGEST_PAUSE, Transport
from .calls import named_call, task_label
from .errors import GridUnreachable, Unavailable
from .events import BEYOND_ALL, END_TYPES, IDLE_TIMEOUT, EventHub, StreamReset, parse_events
from .job import Job
from .models import JobEvent

if TYPE_CHECKING:
    from . import models

DEFAULT_URL = "http://127.0.0.1:8080"

#: The most jobs or tasks of one page.
PAGE = 1000


class Client:
    """A grid's public interface. Threads may share a client; it keeps one event stream for all jobs it waits for.

    ``url`` defaults to ``DIVVY_URL``, else ``http://127.0.0.1:8080``, and may be those of several coordinators with
    commas between; ``token`` defaults to ``DIVVY_TOKEN``. ``timeout`` is how long, in seconds, a request waits for the
    coordinator, and ``retry_for`` how long requests that are safe to repeat are tried again while none answers. Without
    ``ssl_context`` TLS is as ``DIVVY_CA_FILE``, ``DIVVY_CLIENT_CERT``, ``DIVVY_CLIENT_KEY`` and
    ``DIVVY_TLS_SERVER_NAME`` say. Requests are part of the span that ``TRACEPARENT`` and ``TRACESTATE`` name.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        retry_for: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = (url or os.environ.get("DIVVY_URL") or DEFAULT_URL).rstrip("/")
        token = token if token is not None else os.environ.get("DIVVY_TOKEN") or None
        self.transport = Transport(
            self.url, token, timeout=timeout, retry_for=retry_for, ssl_context=ssl_context, headers=trace_headers()
        )
        self.hub = EventHub(self.transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes connections and the event stream. Jobs go on."""
        self.hub.close()
        self.transport.close()

    def submit(
        self,
        kind: models.JobKind,
        params: Mapping[str, Any],
        *,
        priority: int | None = None,
        tags: Mapping[str, str] | None = None,
        affinity: models.Affinity | None = None,
        requires: models.Requirements | None = None,
        max_attempts: int | None = None,
        timeout: models.Timeout | None = None,
        output: str | None = None,
        verify: float | None = None,
        id: str | uuid.UUID | None = None,
    ) -> Job:
        """Submits a job; it is on the grid's disk when this returns.

        ``verify`` is the share of leases, above 0 and up to 1, that a second worker computes again to be compared.
        The job goes under a UUID, ``id`` or a new one, so that a repeated request cannot start a second job.
        """
        body = job_request(
            kind,
            params,
            priority=priority,
            tags=tags,
            affinity=affinity,
            requires=requires,
            max_attempts=max_attempts,
            timeout=timeout,
            output=output,
            verify=verify,
        )
        path = f"/v1/jobs/{uuid.UUID(str(id)) if id is not None else new_job_id()}"
        return Job(self, self.transport.request("PUT", path, json.dumps(body)).checked().json())

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Job:
        """Submits one call of the function that workers have registered as ``name``, with JSON arguments.

        Its result is ``job.result["tasks"][0]``.
        """
        return self.call_each(name, [args], kwargs)

    def call_each(
        self, name: str, each: Iterable[Iterable[Any]], kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Job:
        """Submits a job with one call of the function registered as ``name`` for each list of positional arguments.

        ``options`` are those of ``submit``. The results are ``job.result["tasks"]``, in the order of ``each``.
        """
        requires = dict(options.pop("requires", None) or {})
        requires["labels"] = {**requires.get("labels", {}), task_label(name): "yes"}
        params = {"list": [named_call(name, args, kwargs or {}) for args in each]}
        return self.submit("tasks", params, requires=requires, **options)  # type: ignore[arg-type]

    def job(self, id: str | uuid.UUID) -> Job:
        """A job as it is now."""
        return Job(self, self.show(str(id)))

    def show(self, id: str, **options: float) -> models.Job:
        """A job's description as it is now. ``options`` may be a ``timeout`` and a ``retry_for`` of this request."""
        shown: models.Job = self.transport.get_json(job_path(id), **options)
        return shown

    def jobs(
        self,
        *,
        state: models.JobState | Iterable[models.JobState] = (),
        kind: models.JobKind | None = None,
        tag: str | Iterable[str] = (),
    ) -> Iterator[Job]:
        """Jobs, the newest first, page by page. A tag is ``key`` or ``key:value``."""
        for page in self._pages("/v1/jobs", filter_query(state, kind, tag)):
            yield from (Job(self, shown) for shown in page["jobs"])

    def tasks(self, id: str | uuid.UUID, *, state: models.TaskState | None = None) -> Iterator[models.Task]:
        """The individual tasks of a job of the kind ``tasks``, ``sleep`` or ``program``."""
        query: list[tuple[str, str]] = [("state", state)] if state else []
        for page in self._pages(job_path(id, "/tasks"), query):
            yield from page["tasks"]

    def skip(self, id: str | uuid.UUID, tasks: Iterable[int]) -> list[int]:
        """Skips at most 1000 tasks of a job of the kind ``tasks``: each succeeds with the result None.

        Returns the skipped tasks, also those of an earlier call. A task that runs or is over stays as it is.
        """
        body = json.dumps({"tasks": list(tasks)})
        response = self.transport.request("POST", job_path(id, "/tasks/skip"), body, is_safe=True)
        skipped: models.Skipped = response.checked().json()
        return skipped["skipped"]

    def result(self, id: str | uuid.UUID, *, wait: float = 0.0) -> Any:
        """A job's result. ``Conflict`` while there is none, which is waited for up to ``wait`` seconds, at most 60."""
        path = job_path(id, "/result") + (f"?wait={wait}s" if wait else "")
        return self.transport.get_json(path, timeout=self.transport.timeout + wait)

    def named_result(self, output: str) -> Any:
        """The newest result that a job stored under its ``output`` name."""
        return self.transport.get_json(f"/v1/results/{quote(output, safe='')}")

    def explain(self, id: str | uuid.UUID) -> list[str]:
        """The reasons for which a job's tasks wait, the most important first."""
        explained: models.Explanation = self.transport.get_json(job_path(id, "/explain"))
        return explained["reasons"]

    def cancel(self, id: str | uuid.UUID) -> Job:
        """Cancels a job. Idempotent."""
        return self._act(id, "cancel")

    def pause(self, id: str | uuid.UUID) -> Job:
        """Starts no more tasks of a job. Idempotent."""
        return self._act(id, "pause")

    def resume(self, id: str | uuid.UUID) -> Job:
        """Starts the tasks of a paused job again. Idempotent."""
        return self._act(id, "resume")

    def retry(self, id: str | uuid.UUID) -> Job:
        """Runs a job's failed tasks again."""
        return self._act(id, "retry", is_safe=False)

    def cancel_all(
        self,
        *,
        state: models.JobState | Iterable[models.JobState] = (),
        kind: models.JobKind | None = None,
        tag: str | Iterable[str] = (),
    ) -> models.Changed:
        """Cancels every job that the filter finds; at least one of its fields must be given."""
        path = "/v1/jobs/all/cancel?" + urlencode(filter_query(state, kind, tag))
        changed: models.Changed = self.transport.request("POST", path, is_safe=True).checked().json()
        return changed

    def stats(self) -> models.Stats:
        """The grid's statistics."""
        stats: models.Stats = self.transport.get_json("/v1/stats")
        return stats

    def workers(self) -> list[models.WorkerSummary]:
        """The workers that are there now, those that fetch their tasks, such as Python workers, among them."""
        workers: list[models.WorkerSummary] = self.transport.get_json("/workers")
        return workers

    def events(
        self, id: str | uuid.UUID | None = None, *, after: int | None = None, follow: bool = True
    ) -> Iterator[JobEvent]:
        """Events of one job until its end, or of all jobs for ever.

        ``after`` asks for those with a larger number; without it a job's come from its submission on, all jobs' from
        now on. ``follow=False`` ends with what is there already. An outage of up to ``retry_for`` is waited for. Where
        the grid does not have the next events any more, a warning says so, and the others follow.
        """
        path = "/v1/events" if id is None else job_path(id, "/events")
        seen = BEYOND_ALL if id is None and after is None else after
        last_seen_at, pause = time.monotonic(), FIRST_PAUSE
        while True:
            query = ([("after", seen)] if seen is not None else []) + ([] if follow else [("follow", "false")])
            try:
                stream = self.transport.stream(path + (f"?{urlencode(query)}" if query else ""), {}, IDLE_TIMEOUT)
                if stream.status == 204:
                    return stream.close()
                try:
                    for event in parse_events(stream.lines()):
                        last_seen_at, pause = time.monotonic(), FIRST_PAUSE
                        if isinstance(event, StreamReset):
                            seen = event.told(seen)
                        elif event is not None:
                            seen = event["seq"]
                            yield event
                            # The time that the caller takes for an event is no outage.
                            last_seen_at = time.monotonic()
                            if id is not None and event["type"] in END_TYPES:
                                return None
                finally:
                    stream.close()
                if not follow:
                    return None
            except (GridUnreachable, Unavailable):
                if time.monotonic() - last_seen_at > self.transport.retry_for:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _act(self, id: str | uuid.UUID, action: str, *, is_safe: bool = True) -> Job:
        response = self.transport.request("POST", job_path(id, f"/{action}"), is_safe=is_safe)
        return Job(self, response.checked().json())

    def _pages(self, path: str, query: list[tuple[str, str]]) -> Iterator[Any]:
        token: str | None = None
        while True:
            paged = [*query, ("limit", str(PAGE)), *([("page_token", token)] if token else [])]
            page = self.transport.get_json(f"{path}?{urlencode(paged)}")
            yield page
            token = page.get("next_page_token")
            if token is None:
                return


def job_request(kind: models.JobKind, params: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The body of a submission; options that are None keep the grid's defaults."""
    return {"kind": kind, "params": params, **{key: value for key, value in options.items() if value is not None}}


def job_path(id: str | uuid.UUID, below: str = "") -> str:
    """The path of a job, or of something of it."""
    return f"/v1/jobs/{quote(str(id), safe='')}{below}"


def filter_query(state: str | Iterable[str], kind: str | None, tag: str | Iterable[str]) -> list[tuple[str, str]]:
    """The query of a list of jobs."""
    states = [state] if isinstance(state, str) else list(state)
    tags = [tag] if isinstance(tag, str) else list(tag)
    kinds = [("kind", kind)] if kind else []
    return [*(("state", one) for one in states), *kinds, *(("tag", one) for one in tags)]


def new_job_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562), so that jobs sort by the time they were submitted."""
    millis = time.time_ns() // 1_000_000
    noise = int.from_bytes(os.urandom(10), "big")
    value = (millis << 80) | (0x7 << 76) | ((noise >> 68) << 64) | (0b10 << 62) | (noise & ((1 << 62) - 1))
    return uuid.UUID(int=value & ((1 << 128) - 1))
