"""Variables of the environment that no program of the grid reads, such as misspelt ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PREFIX = "DIVVY_"

#: The variables of all programs of the grid, without the prefix: one that another program reads may be set for several.
_NAMES = """
    ADVERTISE_INTERNAL_ADDR ADVERTISE_PUBLIC_ADDR AGING_INTERVAL_MS ALLOWED_HOSTS ALLOW_NATIVE ANONYMOUS_READ
    API_TOKENS_FILE CA_FILE CHUNK_SIZE CLIENT_CERT CLIENT_KEY COORDINATOR COORDINATOR_ID DASHBOARD DATA_DIR
    DELETION_COST_POD DRAIN_TIMEOUT_MS EVICT_AFTER_MS FRONT_PATIENCE_MS FRONT_TARGET INTERNAL_ADDR KAFKA_BROKERS
    KAFKA_CONFIG KAFKA_PREFIX KUBERNETES_ACCOUNT_DIR LEADERSHIP_LEASE_MS LEASE_TARGET_MS LEASE_TIMEOUT_MS LISTEN_ADDR
    LOCK_TIMEOUT_MS LOG LOG_FORMAT MAX_ATTEMPTS MAX_BODY_MEMORY MAX_HELD_BYTES MAX_INFLIGHT MAX_JOB_BYTES
    MAX_OUTCOME_MEMORY MAX_OUTPUT_BYTES MAX_PROGRAM_BYTES MAX_RESULT_BYTES NO_WORKER_TIMEOUT_MS ORPHAN_TIMEOUT_MS
    PROGRAMS PROGRAM_CACHE_BYTES PROGRAM_DIR PROGRAM_MEMORY_BYTES PUBLIC_ADDR RECOVERY_MS RESULTS_URL RETENTION_BYTES
    RETENTION_DAYS SLOTS STATISTICS_HOURS_DAYS STATISTICS_MINUTES_HOURS STORE_URL TLS_CERT TLS_CLIENT_CA TLS_KEY
    TLS_SERVER_NAME TOKEN URL WORKER_AUDIENCE WORKER_ID WORKER_LABELS WORKER_REVIEW_AGE_MS WORKER_SERVICE_ACCOUNTS
    WORKER_TLS_NAME WORKER_TOKEN WORKER_TOKEN_FILE
"""
_KNOWN = frozenset(_NAMES.split())

#: Variables that Kubernetes sets for a Service whose name begins with ``divvy-``.
_SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT|_PORT_\d")


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """The names with the grid's prefix that no program reads."""
    return sorted(
        name
        for name, value in environment.items()
        if name.startswith(_PREFIX) and name[len(_PREFIX) :] not in _KNOWN and not _is_service_link(name, value)
    )


def _is_service_link(name: str, value: str) -> bool:
    return _SERVICE_LINK.search(name) is not None or (name.endswith("_PORT") and "://" in value)
