"""The worker: threads that claim, one for each slot that runs and reports, and one that renews."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._token import TokenFile
from ..calls import (
    CALLS_LABEL,
    call_labels,
    carries_code,
    error_field,
    error_outcome,
    mismatch,
    task_label,
    words_of,
)
from ..errors import DivvyError
from ..registry import registered
from .board import Board
from .claims import Coordinator, Lease, Source, WaitingClaim, is_passing
from .sent import SentTasks
from .slot import START_TIMEOUT, Slot, SlotEnded, SlotNotStarted, SlotOptions, SlotTimedOut, start_context
from .watcher import Watcher

log = logging.getLogger("divvy.worker")

#: Seconds that the coordinator may keep a claim waiting.
CLAIM_WAIT = 20.0

#: Seconds between two looks at the held leases.
LOOK_INTERVAL = 0.25

#: Seconds to the next renewal of a lease where no coordinator answered.
RENEWAL_PAUSE = 0.25

#: Outcomes of one report, in bytes; the coordinator takes 64 MiB.
MAX_REPORT_BYTES = 63 * 1024 * 1024

#: Seconds for all reports together once no call runs.
LAST_REPORTS = 5.0

#: Seconds that a slot without a process takes no calls: other workers get them.
UNSTARTED_PAUSE = 1.0

#: Seconds after which a slot that still gets no process ends a worker without any process: a new one may get some.
UNSTARTED_FOR = 60.0

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


@dataclass(frozen=True)
class Config:
    """The configuration of a worker."""

    #: The internal URL of a coordinator, or of several with commas between.
    coordinator: str
    worker_id: str
    slots: int
    token: str | TokenFile | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    takes_functions: bool = True
    max_memory_bytes: int | None = None
    memory_bytes: int = 0
    drain_timeout: float = 10.0


class WorkerFailed(Exception):
    """A part of the worker ended by itself."""


class Worker:
    """Runs until ``stop`` was called and everything is finished or handed back."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._coordinator = Coordinator(config.coordinator, config.token)
        context = start_context(config.modules)
        options = SlotOptions(config.modules, config.max_memory_bytes)
        watcher = Watcher(context)
        self._slots = [Slot(context, options, watcher) for _ in range(config.slots)]
        self._board = Board(config.slots)
        #: An item for each call of ``stop``. A signal handler may put into this kind of queue while it interrupts
        #: another call of the same queue: an event would deadlock.
        self._stops: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._giving_up = threading.Event()
        self._failed: str | None = None
        self._lock = threading.Lock()
        self._waiting: dict[str, WaitingClaim] = {}

    def stop(self) -> None:
        """Begins to drain; the second time, gives up what runs. May be called by a signal handler."""
        self._stops.put(None)

    def run(self) -> None:
        """Works until it is stopped. Raises ``WorkerFailed`` if it cannot go on."""
        self._start_slots()
        runners = [self._thread(f"slot-{number}", self._run_slot, slot) for number, slot in enumerate(self._slots)]
        others = [self._thread(f"claims-{source.worker_id}", self._claim, source) for source in self._sources()]
        others.append(self._thread("renewals", self._renew))
        log.info(
            "worker %s fetches from %s with %d slots", self._config.worker_id, self._config.coordinator, len(runners)
        )
        while not self._is_to_stop(0.5):
            if self._failed is not None:
                break
        self._drain(runners, others)
        if self._failed is not None:
            raise WorkerFailed(self._failed)

    def _start_slots(self) -> None:
        try:
            for slot in self._slots:
                slot.start()
        except BaseException as error:
            for slot in self._slots:
                slot.stop()
            if isinstance(error, SlotEnded):
                raise WorkerFailed(f"a slot cannot start: its process {error}; see above") from error
            if isinstance(error, SlotNotStarted):
                raise WorkerFailed(f"a slot cannot start: {error}") from error
            if isinstance(error, SlotTimedOut):
                raise WorkerFailed(f"a slot cannot start: it takes longer than {START_TIMEOUT:.0f} s") from error
            raise

    def _is_to_stop(self, timeout: float) -> bool:
        """Whether ``stop`` is called within a time."""
        try:
            self._stops.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def _sources(self) -> list[Source]:
        config = self._config
        named = {task_label(name): "yes" for name in registered()}
        resources = {"cpus": config.slots, "memory_bytes": config.memory_bytes}
        # Without functions nothing but named tasks is claimed: no job asks for this value of the label.
        own = call_labels("single") if config.takes_functions else {CALLS_LABEL: "none"}
        sources = [Source(config.worker_id, {**config.labels, **named, **own}, resources, is_chunks=False)]
        if config.takes_functions:
            labels = {**config.labels, **call_labels("chunk")}
            sources.append(Source(f"{config.worker_id}.chunks", labels, resources, is_chunks=True))
        return sources

    def _thread(self, name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                target(*args)
            except BaseException as error:
                log.exception("thread %s died", name)
                self._failed = f"thread {name} died: {error!r}"

        thread = threading.Thread(target=guarded, name=f"divvy-{name}", daemon=True)
        thread.start()
        return thread

    def _drain(self, runners: list[threading.Thread], others: list[threading.Thread]) -> None:
        log.info("stopping")
        with self._lock:
            self._stopping.set()
            waiting = list(self._waiting.values())
        for claim in waiting:
            claim.take_back()
        # A coordinator that is away must not delay the end of the running calls.
        others = [*others, self._thread("hand-backs", self._hand_back, self._board.drain())]
        deadline = time.monotonic() + self._config.drain_timeout
        while any(thread.is_alive() for thread in runners):
            if time.monotonic() >= deadline or not self._stops.empty() or self._failed is not None:
                self._giving_up.set()
                # Leases of which some tasks were run, and the others wait behind calls of another lease.
                others.append(self._thread("last-hand-backs", self._hand_back, self._board.kill_all()))
                break
            runners[0].join(0.05) if runners[0].is_alive() else time.sleep(0.05)
        until = time.monotonic() + LAST_REPORTS
        for thread in [*runners, *others]:
            thread.join(timeout=max(0.0, until - time.monotonic()))
        for slot in self._slots:
            slot.kill()
            slot.stop()
        self._coordinator.close()
        log.info("stopped")

    def _hand_back(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._coordinator.hand_back(lease)

    def _hand_back_rest(self, lease: Lease, kept: int) -> None:
        is_cut = self._coordinator.hand_back_rest(lease, kept)
        if is_cut is None:
            self._board.lose(lease)
        if self._board.divided(lease, kept, is_cut is True):
            self._report(lease)

    def _claim(self, source: Source) -> None:
        pause = FIRST_PAUSE
        wanted = self._board.wanted_chunks if source.is_chunks else self._board.wanted_singles
        while (count := wanted()) is not None:
            # If no task is wanted, a task that comes runs between chunks or soon, or goes back with the tasks that wait
            # behind long calls.
            wait = CLAIM_WAIT if count > 0 else 0.0
            claim = self._coordinator.waiting_claim(source, max(count, 1), wait)
            with self._lock:
                if self._stopping.is_set():
                    return
                self._waiting[source.worker_id] = claim
            try:
                lease = claim.run()
                pause = FIRST_PAUSE
            except DivvyError as error:
                log.log(logging.INFO if is_passing(error) else logging.ERROR, "no claim: %s", error)
                self._stopping.wait(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            if lease is not None:
                self._accept(lease)

    def _accept(self, lease: Lease) -> None:
        """Takes a lease to run, declines it, or hands it back."""
        if lease.failure is not None:
            log.warning("declined a task of job %s: %s", lease.job, lease.failure)
            return self._coordinator.fail(lease, lease.failure)
        for task in lease.tasks:
            payload = task["payload"]
            reason = not_admitted(lease, payload) or mismatch(payload) or self._not_for_this_worker(payload)
            if reason is not None:
                log.warning("declined task %d of job %s: %s", task["index"], lease.job, reason)
                return self._coordinator.fail(lease, reason)
        if not self._board.put(lease):
            self._coordinator.hand_back(lease)
        return None

    def _not_for_this_worker(self, payload: Mapping[str, Any]) -> str | None:
        name = payload.get("task")
        if name is None:
            return None if self._config.takes_functions else "UnknownTask: this worker runs named tasks only"
        return None if name in registered() else f"UnknownTask: this worker has no function registered as {name!r}"

    def _run_slot(self, slot: Slot) -> None:
        unstarted_since: float | None = None
        while (taken := self._board.take(slot)) is not None:
            lease, positions = taken
            try:
                run_tasks(slot, lease, positions, self._giving_up.is_set, self._board.put_back)
                unstarted_since = None
            except SlotNotStarted as error:
                log.warning("attempt %s of job %s goes back to the grid: %s", lease.attempt, lease.job, error)
                self._board.give_up(lease)
                now = time.monotonic()
                unstarted_since = now if unstarted_since is None else unstarted_since
                # Slots with a process go on, and end no call for the sake of one without.
                if now - unstarted_since >= UNSTARTED_FOR and all(each.pid is None for each in self._slots):
                    raise
            except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
                # One payload ends no worker, whatever is wrong with it.
                log.exception("attempt %s of job %s cannot be run", lease.attempt, lease.job)
                lease.failure = f"UnknownTask: the payload cannot be run: {type(error).__name__}: {words_of(error)}"
                slot.stop()
            finally:
                # Also where the thread dies: without all its outcomes the lease goes back to the grid.
                if self._board.is_last_of(slot, lease):
                    self._report(lease)
            if unstarted_since is not None:
                self._stopping.wait(UNSTARTED_PAUSE)

    def _report(self, lease: Lease) -> None:
        following: Lease | None = None
        if lease.is_lost:
            log.info("attempt %s was given to another worker or canceled", lease.attempt)
        elif lease.failure is not None:
            self._coordinator.fail(lease, lease.failure)
        elif len(lease.outcomes) < len(lease.tasks):
            self._coordinator.hand_back(lease)
        elif (kept := lease.fitting(MAX_REPORT_BYTES)) < len(lease.tasks):
            # The next claim is smaller.
            self._board.learn(lease)
            self._report_first(lease, kept)
        else:
            # A slot that is done with a single call fetches its next one in the same request, unless chunks wait.
            is_last = lease.source.is_chunks or self._stopping.is_set() or self._board.has_ready_chunks()
            claim = None if is_last else lease.source.claim(1, 0)
            following = self._coordinator.complete(lease, lease.results(), claim)
            if lease.source.is_chunks:
                self._board.learn(lease)
        self._board.done(lease)
        if following is not None:
            self._accept(following)

    def _report_first(self, lease: Lease, kept: int) -> None:
        """Reports the first results of a lease, and hands its other tasks back. Fails a lease that has no parts."""
        is_cut = kept > 0 and not lease.is_whole and self._coordinator.hand_back_rest(lease, kept)
        if is_cut:
            self._coordinator.complete(lease, lease.results(), None)
        elif is_cut is not None:
            self._coordinator.fail(lease, "ResultTooLarge: the results of the tasks of one claim are too long together")

    def _renew(self) -> None:
        while not (self._stopping.is_set() and not self._board.open_leases()):
            if self._giving_up.wait(LOOK_INTERVAL):
                return
            if waiting := self._board.take_waiting():
                log.info("%d leases that wait behind long calls go back to other workers", len(waiting))
                # A coordinator that is away must not keep the other leases from their renewals.
                self._thread("hand-backs", self._hand_back, waiting)
            if rests := self._board.take_rests():
                log.info("the rests of %d leases that wait behind long calls go back to other workers", len(rests))
                for lease, kept in rests:
                    # One that is not taken must not keep back the results of the others.
                    self._thread("rests", self._hand_back_rest, lease, kept)
            for lease in self._board.open_leases():
                if time.monotonic() - lease.last_renewed_at < lease.renew_after:
                    continue
                lease.last_renewed_at = time.monotonic()
                is_kept = self._coordinator.renew(lease)
                if is_kept is None:
                    # The next coordinator gives the lease to another worker unless it hears of it soon.
                    lease.last_renewed_at += RENEWAL_PAUSE - lease.renew_after
                elif not is_kept:
                    self._board.lose(lease)


def not_admitted(lease: Lease, payload: Any) -> str | None:
    """The reason for which a payload's code must not run; None if it may, or if there is none."""
    if lease.is_admitted or not carries_code(payload):
        return None
    return "NotAdmitted: the payload carries code, and its job was submitted without the right 'programs'"


def run_tasks(
    slot: Slot,
    lease: Lease,
    positions: list[int],
    is_giving_up: Callable[[], bool],
    put_back: Callable[[Lease, Sequence[int]], None],
) -> None:
    """Runs some tasks of a lease in a slot. A task that ends its process is run again, up to its ``attempts``.

    Tasks that wait behind a long one are ``put_back`` without having begun.
    """
    pending, ends = deque(positions), Counter[int]()
    while pending and not lease.is_lost and not is_giving_up():
        payloads = [lease.tasks[position]["payload"] for position in pending]
        timeout: float | None = None
        try:
            slot.restart_for(payloads[0].get("session"))
            # A `kill` before its new process began has killed nothing.
            if lease.is_lost or is_giving_up():
                return
            slot.send(payloads)
            sent = SentTasks(slot, lease, pending, put_back)
            for payload in payloads:
                timeout = payload.get("timeout")
                sent.receive(timeout)
            return
        except SlotTimedOut:
            kind, words = "TaskTimedOut", f"the call took longer than {timeout} s"
            if timeout is None:
                kind, words = "TaskCrashed", f"the process for the call took longer than {START_TIMEOUT:.0f} s to start"
        except SlotEnded as end:
            if lease.is_lost or is_giving_up() or not pending:
                return
            if slot.forgive():
                continue
            kind, words = "TaskCrashed", f"the process that ran the call {end}"
        position = pending[0]
        ends[position] += 1
        attempts = int(lease.tasks[position]["payload"].get("attempts", 1))
        log.warning(
            "attempt %d of %d at task %d of job %s: %s",
            ends[position],
            attempts,
            lease.tasks[position]["index"],
            lease.job,
            words,
        )
        if ends[position] >= attempts:
            note_end(lease, position, kind, words, attempts)
            pending.popleft()


def note_end(lease: Lease, position: int, kind: str, words: str, attempts: int) -> None:
    """Gives a task up whose processes ended before it did."""
    if "task" in lease.tasks[position]["payload"]:
        lease.failure = lease.failure or f"{kind}: {words}"
        return
    lease.outcomes[position] = error_outcome(error_field(kind, words + (f", {attempts} times" if attempts > 1 else "")))
