"""Imported by the process that slots are forked from, and by nothing else.

That process ends when no pipe to it is open, and slots hold one: without this it would outlive its worker as long
as a slot is in a call.
"""

from __future__ import annotations

from .child import die_with_parent

die_with_parent()
