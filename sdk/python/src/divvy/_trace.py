"""The span that a client's requests are part of: that of the environment, as W3C Trace Context writes it."""

from __future__ import annotations

import os
import re

#: The longest ``tracestate`` that is sent, in bytes: the grid takes no longer one.
MAX_STATE_BYTES = 512

_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(-.*)?", re.DOTALL)


def trace_headers() -> dict[str, str]:
    """The headers that name the span of ``TRACEPARENT`` and ``TRACESTATE``; none where that is missing or not valid."""
    parent = _PARENT.fullmatch(os.environ.get("TRACEPARENT", "").strip(" \t"))
    # Only versions after the first one have more fields.
    if parent is None or (parent[1] == "00" and parent[3]):
        return {}
    trace, span, _flags = parent[2].split("-")
    if not (trace.strip("0") and span.strip("0")):
        return {}
    state = os.environ.get("TRACESTATE", "")
    is_sendable = state.isascii() and state.isprintable() and len(state) <= MAX_STATE_BYTES
    return {"traceparent": f"00-{parent[2]}", **({"tracestate": state} if state and is_sendable else {})}
