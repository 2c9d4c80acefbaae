"""A job's progress for people: a line on a terminal, a bar in a notebook. Neither needs ipywidgets."""

from __future__ import annotations

import html
import io
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from . import models


class Progress:
    """Shows nothing; the base of the visible kinds."""

    is_visible = False

    def update(self, job: models.Job) -> None:
        """Shows a job as it is now."""

    def close(self) -> None:
        """Leaves what is shown as it is."""


class TerminalProgress(Progress):
    """Shows progress as one line on ``stream``, which it overwrites."""

    is_visible = True

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr or io.StringIO()
        self._is_begun = False

    def update(self, job: models.Job) -> None:
        """Writes the line anew."""
        columns = shutil.get_terminal_size().columns
        bar_width = max(10, min(30, columns - 60))
        done = round(bar_width * job["progress"]["fraction"])
        line = f"[{'#' * done}{'.' * (bar_width - done)}] {describe(job)}"
        self._stream.write("\r" + line[: columns - 1].ljust(columns - 1))
        self._stream.flush()
        self._is_begun = True

    def close(self) -> None:
        """Goes to the next line."""
        if self._is_begun:
            self._stream.write("\n")
            self._stream.flush()


class NotebookProgress(Progress):
    """A bar as HTML that is replaced in place, in any front end that displays IPython's HTML."""

    is_visible = True

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._make: Any = HTML
        self._display: Any = display
        self._handle: Any = None

    def update(self, job: models.Job) -> None:
        """Displays the bar, or replaces it."""
        made = self._make(to_html(job))
        if self._handle is None:
            self._handle = self._display(made, display_id=f"divvy-{uuid.uuid4()}")
        else:
            self._handle.update(made)


def to_html(job: models.Job) -> str:
    """The bar of a job. Text tells the state, not colour alone."""
    percent = 100 * job["progress"]["fraction"]
    colour = {"succeeded": "#2e7d32", "failed": "#c62828", "canceled": "#6d6d6d"}.get(job["state"], "#1565c0")
    label = html.escape(describe(job))
    return (
        f'<div role="progressbar" aria-valuenow="{percent:.0f}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-label="{label}" style="max-width: 40em; font-family: sans-serif; font-size: 0.9em">'
        f'<div style="background: #d9d9d9; height: 0.8em; border-radius: 0.4em; overflow: hidden">'
        f'<div style="background: {colour}; height: 100%; width: {percent:.2f}%"></div></div>{label}</div>'
    )


def describe(job: models.Job) -> str:
    """State, tasks, rate and time left in one line."""
    tasks, progress = job["tasks"], job["progress"]
    words = [f"{job['kind']} {job['state']}", f"{100 * progress['fraction']:.0f} %"]
    words.append(f"{tasks['succeeded']} of {tasks['total']} tasks")
    if tasks["failed"]:
        words.append(f"{tasks['failed']} failed")
    rate, left = progress.get("tasks_per_second"), progress.get("seconds_left")
    if rate is not None and job["state"] == "running":
        words.append(f"{rate:.3g}/s")
    if left is not None and job["state"] == "running":
        words.append(f"{left:.0f} s left")
    notice = job.get("notice")
    return ", ".join(words) + (f" ({notice})" if notice else "")


def is_notebook() -> bool:
    """Whether this runs in a kernel whose front end displays HTML."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def is_terminal(stream: TextIO | None) -> bool:
    """Whether people read a stream as it is written. A process without a terminal may have none, or a closed one."""
    return stream is not None and not stream.closed and stream.isatty()


@contextmanager
def progress_for(wanted: bool | Progress | None) -> Iterator[Progress]:
    """The display of progress: ``wanted``, or by default the one that fits a notebook, a terminal or neither."""
    if isinstance(wanted, Progress):
        shown = wanted
    elif wanted is False:
        shown = Progress()
    elif is_notebook():
        shown = NotebookProgress()
    elif wanted or is_terminal(sys.stderr):
        shown = TerminalProgress()
    else:
        shown = Progress()
    try:
        yield shown
    finally:
        shown.close()
