"""``AsyncClient``: the client for asyncio. Needs aiohttp, as the extra ``async`` brings it.

It has what ``Client`` has, as coroutines, and keeps one event stream for all jobs that are awaited.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ._async_job import AsyncJob
from ._async_requests import AsyncRequests, events_of
from ._transport import FIRST_PAUSE, LONGEST_PAUSE
from .calls import named_call, task_label
from .client import filter_query, job_path, job_request, new_job_id
from .errors import ClientClosed, DivvyError, GridUnreachable, Unavailable
from .events import BEYOND_ALL, CONNECT_TIMEOUT, END_TYPES, StreamReset
from .models import JobEvent

if TYPE_CHECKING:
    from . import models

__all__ = ["AsyncClient", "AsyncJob"]


class AsyncClient(AsyncRequests):
    """A grid's public interface for one event loop. Use it as ``async with AsyncClient(url) as client``.

    One that is kept open can be used in another loop, such as that of the next ``asyncio.run``, when the loop before is
    closed, else it raises ``RuntimeError``. The arguments are those of ``Client``; ``timeout`` is for a whole request
    and its answer.
    """

    def _begin(self) -> None:
        super()._begin()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._connected = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes connections and the event stream. Jobs go on; what waits for one here gets ``ClientClosed``."""
        await self._enter_loop()
        self._is_closed = True
        self._wake(None)
        if self._follower is not None:
            self._follower.cancel()
            # Unlike an await of it, this ends with an error only if this very task is canceled.
            await asyncio.wait([self._follower])
        for response in list(self._streams):
            # Closing the session would leave those waiting that read it.
            response.close()
        if self._opened is not None:
            await self._opened.close()
            # Transports that were aborted are closed by the loop's next turn.
            await asyncio.sleep(0)

    async def submit(
        self, kind: models.JobKind, params: Mapping[str, Any], *, id: str | uuid.UUID | None = None, **options: Any
    ) -> AsyncJob:
        """Submits a job, with the options of ``Client.submit``; it is on the grid's disk when this returns."""
        body = json.dumps(job_request(kind, params, **options))
        path = job_path(uuid.UUID(str(id)) if id is not None else new_job_id())
        return AsyncJob(self, await self._json("PUT", path, body))

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> AsyncJob:
        """Submits one call of the function that workers have registered as ``name``."""
        return await self.call_each(name, [args], kwargs)

    async def call_each(
        self, name: str, each: Iterable[Iterable[Any]], kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncJob:
        """Submits a job with one call of a registered function for each list of positional arguments."""
        requires = dict(options.pop("requires", None) or {})
        requires["labels"] = {**requires.get("labels", {}), task_label(name): "yes"}
        params = {"list": [named_call(name, args, kwargs or {}) for args in each]}
        return await self.submit("tasks", params, requires=requires, **options)

    async def job(self, id: str | uuid.UUID) -> AsyncJob:
        """A job as it is now."""
        return AsyncJob(self, await self.show(str(id)))

    async def show(self, id: str) -> models.Job:
        """A job's description as it is now."""
        shown: models.Job = await self._json("GET", job_path(id))
        return shown

    async def jobs(
        self,
        *,
        state: models.JobState | Iterable[models.JobState] = (),
        kind: models.JobKind | None = None,
        tag: str | Iterable[str] = (),
    ) -> AsyncIterator[AsyncJob]:
        """Jobs, the newest first, page by page."""
        async for page in self._pages("/v1/jobs", filter_query(state, kind, tag)):
            for shown in page["jobs"]:
                yield AsyncJob(self, shown)

    async def tasks(self, id: str | uuid.UUID, *, state: models.TaskState | None = None) -> AsyncIterator[models.Task]:
        """The individual tasks of a job of the kind ``tasks``, ``sleep`` or ``program``."""
        async for page in self._pages(job_path(id, "/tasks"), [("state", state)] if state else []):
            for task in page["tasks"]:
                yield task

    async def result(self, id: str | uuid.UUID, *, wait: float = 0.0) -> Any:
        """A job's result. ``Conflict`` while there is none, which is waited for up to ``wait`` seconds, at most 60."""
        path = job_path(id, "/result") + (f"?wait={wait}s" if wait else "")
        return await self._json("GET", path, more_time=wait)

    async def named_result(self, output: str) -> Any:
        """The newest result that a job stored under its ``output`` name."""
        return await self._json("GET", f"/v1/results/{quote(output, safe='')}")

    async def skip(self, id: str | uuid.UUID, tasks: Iterable[int]) -> list[int]:
        """Skips tasks of a job of the kind ``tasks`` that have not begun, as ``Client.skip`` does."""
        body = json.dumps({"tasks": list(tasks)})
        skipped: models.Skipped = await self._json("POST", job_path(id, "/tasks/skip"), body, is_safe=True)
        return skipped["skipped"]

    async def explain(self, id: str | uuid.UUID) -> list[str]:
        """The reasons for which a job's tasks wait, the most important first."""
        explained: models.Explanation = await self._json("GET", job_path(id, "/explain"))
        return explained["reasons"]

    async def cancel(self, id: str | uuid.UUID) -> AsyncJob:
        """Cancels a job. Idempotent."""
        return await self.act(id, "cancel")

    async def pause(self, id: str | uuid.UUID) -> AsyncJob:
        """Starts no more tasks of a job. Idempotent."""
        return await self.act(id, "pause")

    async def resume(self, id: str | uuid.UUID) -> AsyncJob:
        """Starts the tasks of a paused job again. Idempotent."""
        return await self.act(id, "resume")

    async def retry(self, id: str | uuid.UUID) -> AsyncJob:
        """Runs a job's failed tasks again."""
        return await self.act(id, "retry")

    async def cancel_all(
        self,
        *,
        state: models.JobState | Iterable[models.JobState] = (),
        kind: models.JobKind | None = None,
        tag: str | Iterable[str] = (),
    ) -> models.Changed:
        """Cancels every job that the filter finds; at least one of its fields must be given."""
        path = "/v1/jobs/all/cancel?" + urlencode(filter_query(state, kind, tag))
        changed: models.Changed = await self._json("POST", path)
        return changed

    async def workers(self) -> list[models.WorkerSummary]:
        """The workers that are there now, those that fetch their tasks, such as Python workers, among them."""
        workers: list[models.WorkerSummary] = await self._json("GET", "/workers")
        return workers

    async def act(self, id: str | uuid.UUID, action: str) -> AsyncJob:
        """Changes a job: ``cancel``, ``pause``, ``resume`` or ``retry``."""
        shown = await self._json("POST", job_path(id, f"/{action}"), is_safe=action != "retry")
        return AsyncJob(self, shown)

    async def stats(self) -> models.Stats:
        """The grid's statistics."""
        stats: models.Stats = await self._json("GET", "/v1/stats")
        return stats

    async def events(
        self, id: str | uuid.UUID | None = None, *, after: int | None = None, follow: bool = True
    ) -> AsyncIterator[JobEvent]:
        """Events of one job until its end, or of all jobs for ever; see ``Client.events``."""
        path = "/v1/events" if id is None else job_path(id, "/events")
        seen = BEYOND_ALL if id is None and after is None else after
        last_seen_at, pause = time.monotonic(), FIRST_PAUSE
        while True:
            query = ([("after", seen)] if seen is not None else []) + ([] if follow else [("follow", "false")])
            try:
                async with self._stream(path + (f"?{urlencode(query)}" if query else "")) as response:
                    async for event in events_of(response):
                        last_seen_at, pause = time.monotonic(), FIRST_PAUSE
                        if isinstance(event, StreamReset):
                            seen = event.told(seen)
                        elif event is not None:
                            seen = event["seq"]
                            yield event
                            # The time that the caller takes for an event is no outage.
                            last_seen_at = time.monotonic()
                            if id is not None and event["type"] in END_TYPES:
                                return
                    if not follow or response.status == 204:
                        return
            except (GridUnreachable, Unavailable):
                if time.monotonic() - last_seen_at > self._retry_for:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    @asynccontextmanager
    async def watching(self, id: str, timeout: float | None = None) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the job may be over, for as long as the block runs."""
        if self._is_closed:
            raise ClientClosed("the client is closed")
        await self._enter_loop()
        event = asyncio.Event()
        self._waiting.setdefault(id, set()).add(event)
        if self._follower is None or self._follower.done():
            self._follower = asyncio.create_task(self._follow())
        try:
            with suppress(asyncio.TimeoutError):
                patience = CONNECT_TIMEOUT if timeout is None else max(0.0, min(timeout, CONNECT_TIMEOUT))
                await asyncio.wait_for(self._connected.wait(), patience)
            yield event
        finally:
            self._waiting[id].discard(event)
            if not self._waiting[id]:
                del self._waiting[id]

    async def _follow(self) -> None:
        """Follows all events while somebody waits."""
        seen: int | None = None
        pause = FIRST_PAUSE
        while self._waiting:
            try:
                async with self._stream("/v1/events" + (f"?after={seen}" if seen is not None else "")) as response:
                    self._connected.set()
                    self._wake(None)
                    async for event in events_of(response):
                        pause = FIRST_PAUSE
                        if isinstance(event, StreamReset):
                            seen = event.resumes_after
                            self._wake(None)
                        elif event is not None:
                            seen = event["seq"]
                            self._wake(event)
                        if not self._waiting:
                            break
            except DivvyError:
                pause = min(pause * 2, LONGEST_PAUSE)
            finally:
                self._connected.clear()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def _wake(self, event: JobEvent | None) -> None:
        if event is None:
            woken = [waiter for waiters in self._waiting.values() for waiter in waiters]
        else:
            woken = list(self._waiting.get(event["job"], ())) if event["type"] in END_TYPES else []
        for waiter in woken:
            waiter.set()
