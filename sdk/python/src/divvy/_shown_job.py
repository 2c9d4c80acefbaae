"""``ShownJob``: what ``Job`` and ``AsyncJob`` show of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import models

OVER = frozenset({"succeeded", "failed", "canceled"})


class ShownJob:
    """A job as it was when it was last looked at."""

    def __init__(self, shown: models.Job) -> None:
        self.data = shown

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.kind} {self.state}>"

    @property
    def id(self) -> str:
        """Its id."""
        return self.data["id"]

    @property
    def kind(self) -> models.JobKind:
        """What it computes."""
        return self.data["kind"]

    @property
    def state(self) -> models.JobState:
        """Where it was in its life."""
        return self.data["state"]

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it, unless it is retried."""
        return self.state in OVER

    @property
    def progress(self) -> models.JobProgress:
        """How far it was."""
        return self.data["progress"]

    @property
    def error(self) -> str | None:
        """Why it failed."""
        return self.data.get("error")

    @property
    def notice(self) -> str | None:
        """Why it cannot run as things were, such as no worker with what it requires."""
        return self.data.get("notice")
