"""Imported last by the process that slots are forked from, and by nothing else.

The standard library's fork server warns of each child that it waits for and has not forked. As an error, which a module
that was imported before may make of warnings, the first such child would end the fork server.
"""

from __future__ import annotations

import warnings

warnings.filterwarnings("ignore", message="forkserver: waitpid returned unexpected pid")
