"""``AsyncJob``: a handle of a job on the grid, for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ._shown_job import ShownJob
from .errors import Conflict, JobCanceled, JobFailed
from .job import LOOK_INTERVAL, SHORTEST_TIMEOUT
from .models import JobEvent

if TYPE_CHECKING:
    from . import models
    from .aio import AsyncClient


class AsyncJob(ShownJob):
    """A job as it was when it was last looked at. ``await job`` waits until it is over and returns it."""

    def __init__(self, client: AsyncClient, shown: models.Job) -> None:
        self._client = client
        super().__init__(shown)

    def __await__(self) -> Generator[Any, None, AsyncJob]:
        return self.wait().__await__()

    async def refresh(self) -> AsyncJob:
        """Fetches the job anew."""
        self.data = await self._client.show(self.id)
        return self

    async def wait(self, timeout: float | None = None) -> AsyncJob:
        """Waits for the job's end, also over coordinator restarts. ``TimeoutError`` after ``timeout`` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        async with self._client.watching(self.id, timeout) as news:
            while True:
                news.clear()
                await self._refresh_until(until)
                if self.is_over:
                    return self
                left = LOOK_INTERVAL if until is None else min(LOOK_INTERVAL, until - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"job {self.id} is {self.state} after {timeout} s")
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), left)

    async def result(self) -> Any:
        """Waits for the job's end and returns its result. ``JobFailed`` or ``JobCanceled`` if there is none."""
        if not self.is_over:
            await self.wait()
        if self.state == "canceled":
            raise JobCanceled(self.id, "it was canceled")
        if self.state == "failed":
            raise JobFailed(self.id, await self._failure())
        return await self._client.result(self.id)

    async def _refresh_until(self, until: float | None) -> None:
        """Fetches the job anew. ``TimeoutError`` where the grid does not answer until then."""
        left = None if until is None else max(SHORTEST_TIMEOUT, until - time.monotonic())
        try:
            await asyncio.wait_for(self.refresh(), left)
        except asyncio.TimeoutError:
            raise TimeoutError(f"job {self.id} was {self.state} when the grid was last there") from None

    async def _failure(self) -> str:
        """The job's error, and that of its first failed task."""
        reason = self.data.get("error") or "it failed"
        # Other kinds have no tasks with a state of their own.
        with suppress(Conflict):
            async for first in self.tasks(state="failed"):
                return f"{reason}; task {first['index']}: {first.get('last_error')}"
        return reason

    async def explain(self) -> list[str]:
        """The reasons for which the job's tasks wait, the most important first."""
        return await self._client.explain(self.id)

    async def cancel(self) -> AsyncJob:
        """Cancels the job. Idempotent."""
        return await self._act("cancel")

    async def pause(self) -> AsyncJob:
        """Starts no more tasks of the job. Idempotent."""
        return await self._act("pause")

    async def resume(self) -> AsyncJob:
        """Starts the tasks of the paused job again. Idempotent."""
        return await self._act("resume")

    async def retry(self) -> AsyncJob:
        """Runs the job's failed tasks again."""
        return await self._act("retry")

    async def _act(self, action: str) -> AsyncJob:
        self.data = (await self._client.act(self.id, action)).data
        return self

    def tasks(self, *, state: models.TaskState | None = None) -> AsyncIterator[models.Task]:
        """The job's individual tasks."""
        return self._client.tasks(self.id, state=state)

    def events(self, *, after: int | None = None, follow: bool = True) -> AsyncIterator[JobEvent]:
        """The job's events, from its submission to its end."""
        return self._client.events(self.id, after=after, follow=follow)
