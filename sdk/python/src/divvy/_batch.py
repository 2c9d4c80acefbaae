"""A job of an executor, as its collector sees it: the futures of its open tasks, and the time of the next look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .models import JobEvent

if TYPE_CHECKING:
    from ._engine import GridFuture

#: Seconds between looks at a job: the first pause, its factor of growth without news, and its bounds.
FIRST_PAUSE = 0.004
GROWTH = 1.6
LONGEST_PAUSE = 0.5
LONGEST_BUSY_PAUSE = 0.05

#: Seconds that each open job adds to the bounds of the pause.
PAUSE_PER_JOB = 0.005


class Batch:
    """A job of an executor, and the futures of its tasks that are open."""

    def __init__(self, id: str, futures: Sequence[GridFuture]) -> None:
        self.id = id
        self.open: dict[int, GridFuture] = dict(enumerate(futures))
        self.total = len(futures)
        self.added_at = time.monotonic()
        self.pause = FIRST_PAUSE
        self.due_at = self.added_at + FIRST_PAUSE
        self.is_over = False
        #: Whether futures were canceled that the grid has not been told of.
        self.has_cancels = False
        #: Whether some of these run, or have run, as far as the grid knows.
        self.has_late_cancels = False
        self.has_noticed = False
        #: Start of the present row of refusals, if the last answer was one.
        self.refused_since: float | None = None
        #: First task of the next look beyond the first open tasks.
        self.looked_to = 0
        self.state_known_at = time.monotonic()
        self.watcher: Callable[[JobEvent | None], None] | None = None

    def ranges(self, first: int) -> Iterator[tuple[int, int]]:
        """Ranges of open tasks from an index on."""
        start = end = -1
        for index in [index for index in self.open if index >= first]:
            if index != end:
                if start >= 0:
                    yield start, end
                start = index
            end = index + 1
        if start >= 0:
            yield start, end

    def are_all_canceled(self) -> bool:
        """Whether the futures of all open tasks are canceled."""
        return bool(self.open) and all(future.cancelled() for future in self.open.values())

    def pace(self, *, is_news: bool, jobs: int) -> None:
        """Sets the time of the next look: the expected end at the rate so far, else after a growing pause."""
        now, done = time.monotonic(), self.total - len(self.open)
        if is_news:
            left = (now - self.added_at) * len(self.open) / done
            self.pause = max(FIRST_PAUSE, min(left, LONGEST_BUSY_PAUSE + PAUSE_PER_JOB * jobs))
        else:
            self.pause = min(self.pause * GROWTH, LONGEST_PAUSE + PAUSE_PER_JOB * jobs)
        self.due_at = now + self.pause
