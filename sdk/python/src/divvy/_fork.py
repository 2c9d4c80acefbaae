"""Resets connections, locks and threads in forked children, which must not share them with their parent."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """An object with connections, locks or threads."""

    def after_fork(self) -> None:
        """Drops the parent's connections, locks and threads. Called in the child, where no other thread runs."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()


def remember(each: Forked) -> None:
    """Calls the object's ``after_fork`` in every child that is forked during its life."""
    _known.add(each)


def _after_fork_in_child() -> None:
    for each in list(_known):
        each.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
