"""``ShownJob``: the properties that ``Job`` and ``AsyncJob`` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import models

OVER = frozenset({"succeeded", "failed", "canceled"})


class ShownJob:
    """A job as it was when it was last fetched."""

    def __init__(self, shown: models.Job) -> None:
        self.data = shown

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.kind} {self.state}>"

    @property
    def id(self) -> str:
        """The job's UUID."""
        return self.data["id"]

    @property
    def kind(self) -> models.JobKind:
        """The kind of computation, such as ``tasks``."""
        return self.data["kind"]

    @property
    def state(self) -> models.JobState:
        """The job's state, such as ``running``."""
        return self.data["state"]

    @property
    def is_over(self) -> bool:
        """Whether the job has ended; a retry starts it again."""
        return self.state in OVER

    @property
    def progress(self) -> models.JobProgress:
        """The job's progress, with its ``fraction`` from 0 to 1."""
        return self.data["progress"]

    @property
    def error(self) -> str | None:
        """The reason of a failed job's failure, else None."""
        return self.data.get("error")

    @property
    def notice(self) -> str | None:
        """The reason for which the job cannot run now, such as a label that no worker has, else None."""
        return self.data.get("notice")
