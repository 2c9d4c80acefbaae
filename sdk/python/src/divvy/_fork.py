"""What a forked process must not share with its parent: connections, and threads that it does not have."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something with connections, locks or threads."""

    def after_fork(self) -> None:
        """Leaves to the parent what is the parent's, in the child, where no other thread runs."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()


def remember(each: Forked) -> None:
    """Calls its ``after_fork`` in every child that is forked while it is there."""
    _known.add(each)


def _after_fork_in_child() -> None:
    for each in list(_known):
        each.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
