"""Bodies of the HTTP interface, generated from the coordinator's OpenAPI description: do not edit.

Made by ``tools/generate_models.py``; a test compares this file with the description of a running coordinator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

AttemptId: TypeAlias = "str"

CoordinatorRole: TypeAlias = Literal[
    "leader",
    "standby",
]

Delivery: TypeAlias = Literal[
    "pushed",
    "pulled",
]

EventKind: TypeAlias = Literal[
    "submitted",
    "started",
    "progress",
    "paused",
    "resumed",
    "retried",
    "task-failed",
    "succeeded",
    "failed",
    "canceled",
]

Grain: TypeAlias = Literal[
    "minute",
    "hour",
    "day",
    "week",
    "month",
]

JobId: TypeAlias = "str"

JobKind: TypeAlias = "str"

JobParams: TypeAlias = "dict[str, Any]"

JobState: TypeAlias = Literal[
    "queued",
    "running",
    "paused",
    "succeeded",
    "failed",
    "canceled",
]

Labels: TypeAlias = "dict[str, str]"

Priority: TypeAlias = "int"

TaskState: TypeAlias = Literal[
    "pending",
    "running",
    "succeeded",
    "failed",
]

WorkerState: TypeAlias = Literal[
    "ready",
    "suspended",
    "draining",
]


class Affinity(TypedDict):
    key: NotRequired[str | None]
    labels: NotRequired[Labels]


class AttemptFigures(TypedDict):
    ended: int
    failed: int


class BroughtProgram(TypedDict):
    description: str
    name: str
    workers: int


class Changed(TypedDict):
    changed: int
    matched: int


class ClaimRequest(TypedDict):
    kinds: list[JobKind]
    labels: NotRequired[Labels]
    max_tasks: NotRequired[int]
    resources: NotRequired[Resources]
    wait_seconds: NotRequired[float]
    worker_id: str


class Claimed(TypedDict):
    attempt: AttemptId
    expires_at: str
    is_admitted: NotRequired[bool]
    job: JobId
    kind: JobKind
    lease: LeaseName
    tasks: list[ClaimedTask]
    traceparent: NotRequired[str | None]
    tracestate: NotRequired[str | None]


class ClaimedTask(TypedDict):
    index: int
    payload: Any


class Completion(TypedDict):
    claim: NotRequired[ClaimRequest | None]
    compute_us: NotRequired[int | None]
    lease: NotRequired[LeaseName | None]
    results: NotRequired[list[Any]]
    value: NotRequired[str | None]


class CoordinatorList(TypedDict):
    coordinators: list[CoordinatorSummary]


class CoordinatorSummary(TypedDict):
    epoch: NotRequired[int | None]
    id: str
    instance: str
    internal_address: str
    last_contact_ms_ago: int
    public_address: str
    role: CoordinatorRole
    started_at: str
    version: str


class Counts(TypedDict):
    attempts: NotRequired[int | None]
    attempts_failed: NotRequired[int | None]
    computing: NotRequired[Durations | None]
    jobs_canceled: NotRequired[int | None]
    jobs_failed: NotRequired[int | None]
    jobs_pending: NotRequired[int | None]
    jobs_retried: NotRequired[int | None]
    jobs_started: NotRequired[int | None]
    jobs_submitted: NotRequired[int | None]
    jobs_succeeded: NotRequired[int | None]
    running: NotRequired[Durations | None]
    task_starts: NotRequired[int | None]
    tasks_canceled: NotRequired[int | None]
    tasks_failed: NotRequired[int | None]
    tasks_pending: NotRequired[int | None]
    tasks_retried: NotRequired[int | None]
    tasks_started: NotRequired[int | None]
    tasks_submitted: NotRequired[int | None]
    tasks_succeeded: NotRequired[int | None]
    waiting: NotRequired[Durations | None]


class DiskStats(TypedDict):
    free_bytes: int
    total_bytes: int


class DurationFigures(TypedDict):
    buckets: dict[str, int]
    count: int
    p50_seconds: NotRequired[float | None]
    p90_seconds: NotRequired[float | None]
    p99_seconds: NotRequired[float | None]
    sum_us: int


class Durations(TypedDict):
    buckets: dict[str, int]
    sum_us: int


class EventSource(TypedDict):
    offset: int
    partition: int
    topic: str


class Explanation(TypedDict):
    reasons: list[str]
    state: JobState


class Job(TypedDict):
    affinity: Affinity
    algorithm: NotRequired[str | None]
    attempts: int
    error: NotRequired[str | None]
    finished_at: NotRequired[str | None]
    id: JobId
    kind: JobKind
    max_attempts: int
    notice: NotRequired[str | None]
    output: NotRequired[str | None]
    params: Any
    priority: Priority
    progress: JobProgress
    requires: Requirements
    started_at: NotRequired[str | None]
    state: JobState
    submitted_at: str
    submitted_by: NotRequired[str | None]
    tags: Labels
    tasks: TaskCounts
    timeout: Timeout
    verification: NotRequired[JobVerification | None]


class JobEvent(TypedDict):
    at: str
    counts: NotRequired[Counts | None]
    error: NotRequired[str | None]
    job: JobId
    kind: NotRequired[JobKind | None]
    seq: int
    source: NotRequired[EventSource | None]
    task: NotRequired[str | None]
    tasks_done: NotRequired[int | None]
    tasks_total: NotRequired[int | None]
    type: EventKind


class JobFigures(TypedDict):
    canceled: int
    failed: int
    pending: int
    retried: int
    started: int
    submitted: int
    succeeded: int


class JobPage(TypedDict):
    jobs: list[Job]
    next_page_token: NotRequired[str | None]


class JobProgress(TypedDict):
    fraction: float
    numbers_done: NotRequired[float | None]
    seconds_left: NotRequired[float | None]
    tasks_per_second: NotRequired[float | None]


class JobRequest(TypedDict):
    affinity: NotRequired[Affinity]
    kind: JobKind
    max_attempts: NotRequired[int]
    output: NotRequired[str | None]
    params: JobParams
    priority: NotRequired[Priority]
    requires: NotRequired[Requirements]
    tags: NotRequired[Labels]
    timeout: NotRequired[Timeout]
    verify: NotRequired[float | None]


class JobVerification(TypedDict):
    compared_leases: NotRequired[int]
    mismatches: NotRequired[int]
    recomputed_tasks: NotRequired[int]
    share: float
    waiting_leases: NotRequired[int]
    workers_set_aside: NotRequired[list[str]]


class KafkaStats(TypedDict):
    dead_letters_refused: NotRequired[int]
    errors: dict[str, str]
    lost_events: int
    partitions_made_anew: int
    partitions_truncated: NotRequired[int]
    published_event: int
    records_dead: int
    records_missed: int
    records_taken: int
    unpublished_events: int


class KindDemand(TypedDict):
    paused: int
    runnable: int
    running: int
    unservable: int
    wanted_slots: int


class LeaseName(TypedDict):
    beyond: int
    first: int
    job: JobId
    worker_id: str


class LogPage(TypedDict):
    cursor: str
    is_over: bool
    logs: list[TaskLog]
    next_page_token: NotRequired[str | None]


class PeriodStatistics(TypedDict):
    attempts: AttemptFigures
    compute_seconds: float
    computing: DurationFigures
    end: str
    jobs: JobFigures
    kind: JobKind
    running: DurationFigures
    start: str
    tasks: TaskFigures
    waiting: DurationFigures


class Problem(TypedDict):
    detail: str
    field: NotRequired[str | None]
    status: int
    title: str


class Program(TypedDict):
    bytes: int
    kind: str
    sha256: str
    uploaded_at: str
    uploaded_by: NotRequired[str | None]


class ProgramNames(TypedDict):
    names: list[BroughtProgram]
    native_workers: int
    wasm_workers: int


class ProgramPage(TypedDict):
    next_page_token: NotRequired[str | None]
    programs: list[Program]


class ReleaseRequest(TypedDict):
    beyond: NotRequired[int | None]
    lease: NotRequired[LeaseName | None]


class RenewRequest(TypedDict):
    lease: NotRequired[LeaseName | None]


class Renewed(TypedDict):
    expires_at: str


class Requirements(TypedDict):
    cpus: NotRequired[int | None]
    labels: NotRequired[Labels]
    memory_bytes: NotRequired[int | None]


class Resources(TypedDict):
    cpus: NotRequired[int]
    memory_bytes: NotRequired[int]


class Simulation(TypedDict):
    priorities: NotRequired[list[Priority]]
    seconds: float
    tasks: int
    workers: int


class SimulationStarted(TypedDict):
    jobs: list[Job]


class SkipRequest(TypedDict):
    tasks: list[int]


class Skipped(TypedDict):
    skipped: list[int]


class StatisticsPage(TypedDict):
    grain: Grain
    next_page_token: NotRequired[str | None]
    periods: list[PeriodStatistics]


class Stats(TypedDict):
    demand: dict[str, KindDemand]
    disk: NotRequired[DiskStats | None]
    jobs: dict[str, int]
    kafka: NotRequired[KafkaStats | None]
    numbers_per_second: float
    queue_depth_by_priority: dict[str, int]
    store_backlog: int
    store_error: NotRequired[str | None]
    tasks: TaskCounts
    tasks_per_second: float
    unreadable_jobs: NotRequired[int]
    wanted_slots: int
    workers: WorkerStats


class StreamReset(TypedDict):
    asked_after: int
    newest: int
    oldest: NotRequired[int | None]
    resumes_after: int


class SumOfPrimes(TypedDict):
    a: int
    algorithm: NotRequired[str]
    b: int
    elapsed_ms: int
    sum: str
    tasks: int
    verified: NotRequired[bool]


class Task(TypedDict):
    allocated_at: NotRequired[str | None]
    attempts: int
    completed_at: NotRequired[str | None]
    error_at: NotRequired[str | None]
    index: int
    last_error: NotRequired[str | None]
    pending_at: str
    result: NotRequired[Any]
    running_at: NotRequired[str | None]
    state: TaskState
    worker: NotRequired[str | None]


class TaskCounts(TypedDict):
    failed: int
    pending: int
    running: int
    succeeded: int
    total: int


class TaskFailure(TypedDict):
    error: str
    lease: NotRequired[LeaseName | None]


class TaskFigures(TypedDict):
    canceled: int
    failed: int
    pending: int
    retried: int
    started: int
    starts: int
    submitted: int
    succeeded: int


class TaskLog(TypedDict):
    attempt: AttemptId
    ended_at: NotRequired[str | None]
    omitted_bytes: int
    task: int
    text: str
    worker: str


class TaskPage(TypedDict):
    next_page_token: NotRequired[str | None]
    tasks: list[Task]


class TaskStarts(TypedDict):
    end: str
    kind: JobKind
    start: str
    starts: int
    task: str


class TaskStartsPage(TypedDict):
    grain: Grain
    next_page_token: NotRequired[str | None]
    tasks: list[TaskStarts]


class Timeout(TypedDict):
    job_seconds: NotRequired[int | None]
    task_seconds: NotRequired[int | None]


class WorkerStats(TypedDict):
    draining: int
    leases: int
    pulling: int
    ready: int
    simulated: NotRequired[int]
    slots: int
    suspended: int


class WorkerSummary(TypedDict):
    address: NotRequired[str | None]
    boot_id: NotRequired[str | None]
    busy: int
    completed_tasks: int
    cpu_load: float
    delivery: Delivery
    free_memory_bytes: int
    id: str
    kinds: list[JobKind]
    labels: Labels
    last_seen_ms_ago: int
    resources: Resources
    running: int
    slots: int
    speed_numbers_per_s: NotRequired[int | None]
    state: WorkerState
    suspension: NotRequired[WorkerSuspension | None]
    version: str


class WorkerSuspension(TypedDict):
    ends_in_ms: NotRequired[int | None]
    reason: str
