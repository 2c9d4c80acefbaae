"""The leases that a worker hands back, where it gives up what runs or they wait behind long calls, and its claims."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest

from divvy.worker import board as boards
from divvy.worker import claims, service
from divvy.worker.board import Board
from divvy.worker.claims import Lease, Source
from divvy.worker.service import Config, Worker

from .helpers import DEADLINE, answering, eventually, serving


class IdleSlot:
    """In place of a slot's process."""

    is_killed = False

    def kill(self) -> None:
        self.is_killed = True


def lease(attempt: str, tasks: int, *, is_chunks: bool) -> Lease:
    source = Source("one", {}, {"cpus": 1, "memory_bytes": 0}, is_chunks=is_chunks)
    return Lease(attempt, "job", [{"index": index, "payload": {}} for index in range(tasks)], 1.0, source)


def test_a_lease_that_no_slot_runs_any_more_is_left_to_be_handed_back() -> None:
    board, slot = Board(1), IdleSlot()
    of_board: Any = slot
    chunks, single = lease("chunks", 4, is_chunks=True), lease("single", 1, is_chunks=False)
    assert board.put(chunks)
    assert board.take(of_board) == (chunks, [0, 1])
    assert board.put(single)
    assert not board.is_last_of(of_board, chunks)
    # A single call goes before the rest of the chunks.
    assert board.take(of_board) == (single, [0])
    assert board.drain() == []
    assert board.kill_all() == [chunks] and slot.is_killed
    assert board.is_last_of(of_board, single)
    assert board.open_leases() == [single]


def test_a_lease_that_a_slot_runs_is_left_to_the_slot() -> None:
    board = Board(1)
    of_board: Any = IdleSlot()
    chunks = lease("chunks", 4, is_chunks=True)
    assert board.put(chunks)
    assert board.take(of_board) == (chunks, [0, 1])
    board.drain()
    assert board.kill_all() == []
    assert board.is_last_of(of_board, chunks)


def test_a_lease_that_waits_behind_long_calls_is_left_to_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "PATIENCE", 1e9)
    board = Board(2)
    slots: list[Any] = [IdleSlot(), IdleSlot()]
    long = [lease(f"long-{number}", 1, is_chunks=False) for number in range(2)]
    waiting, begun = lease("waiting", 1, is_chunks=False), lease("begun", 4, is_chunks=True)
    assert board.put(begun) and board.take(slots[0]) == (begun, [0])
    for slot, each in zip(slots, long, strict=True):
        assert board.put(each) and board.take(slot) == (each, [0])
    assert board.put(waiting)
    assert board.take_waiting() == []
    monkeypatch.setattr(boards, "PATIENCE", 0.0)
    assert board.take_waiting() == [waiting]
    assert board.open_leases() == [begun, *long]
    # The rest of a lease that is begun has its outcomes here.
    assert board.take(slots[0]) == (begun, [1])


def test_no_chunks_are_fetched_ahead_while_every_slot_runs_a_long_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "PATIENCE", 1e9)
    board = Board(1)
    slot: Any = IdleSlot()
    long = lease("long", 1, is_chunks=False)
    assert board.put(long) and board.take(slot) == (long, [0])
    assert board._chunks_now() > 0
    monkeypatch.setattr(boards, "PATIENCE", 0.0)
    assert board._chunks_now() == 0


def test_no_slots_thread_ends_before_the_calls_of_the_others() -> None:
    board = Board(2)
    slots: list[Any] = [IdleSlot(), IdleSlot()]
    running = lease("running", 1, is_chunks=False)
    assert board.put(running) and board.take(slots[0]) == (running, [0])
    assert board.drain() == []
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(board.take(slots[1])), daemon=True)
    waiting.start()
    eventually("it waits", lambda: board._idle == 1)
    assert taken == []
    assert board.is_last_of(slots[0], running)
    assert board.take(slots[0]) is None
    waiting.join(DEADLINE)
    assert taken == [None]


def test_slots_threads_end_where_a_call_is_given_up() -> None:
    board = Board(2)
    slots: list[Any] = [IdleSlot(), IdleSlot()]
    running = lease("running", 1, is_chunks=False)
    assert board.put(running) and board.take(slots[0]) == (running, [0])
    board.drain()
    board.kill_all()
    assert board.take(slots[1]) is None


def test_a_worker_whose_slots_are_all_taken_asks_now_and_then_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "PRESENCE_INTERVAL", 0.0)
    # Nothing is fetched ahead.
    monkeypatch.setattr(boards, "PATIENCE", 0.0)
    monkeypatch.setattr(service, "Watcher", lambda _context: None)
    worker = Worker(Config("http://127.0.0.1:9", "one", 1))
    board = worker._board
    slot: Any = IdleSlot()
    running = lease("running", 1, is_chunks=True)
    assert board.put(running) and board.take(slot) == (running, [0])
    assert board.wanted_chunks() == board.wanted_singles() == 0
    claims: list[tuple[str, int, float]] = []

    class Asked:
        """In place of the coordinator and a claim that finds nothing, during which the worker begins to drain."""

        def waiting_claim(self, source: Source, max_tasks: int, wait_seconds: float) -> Asked:
            claims.append((source.worker_id, max_tasks, wait_seconds))
            return self

        def run(self) -> None:
            board.drain()

    coordinator: Any = Asked()
    worker._coordinator = coordinator
    worker._claim(running.source)
    assert claims == [("one", 1, 0.0)]
    assert board.wanted_chunks() is None and board.wanted_singles() is None


def stuck_behind(monkeypatch: pytest.MonkeyPatch, tasks: int) -> tuple[Board, Any, Lease]:
    """A board whose only slot runs the first half of a lease of chunks for long."""
    board, chunks = Board(1), lease("chunks", tasks, is_chunks=True)
    slot: Any = IdleSlot()
    assert board.put(chunks) and board.take(slot) == (chunks, list(range(tasks // 2)))
    monkeypatch.setattr(boards, "PATIENCE", 1e9)
    assert board.take_rests() == []
    monkeypatch.setattr(boards, "PATIENCE", 0.0)
    return board, slot, chunks


def test_the_rest_of_a_begun_lease_that_waits_behind_long_chunks_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    board, slot, chunks = stuck_behind(monkeypatch, 4)
    assert board.take_waiting() == []
    assert board.take_rests() == [(chunks, 2)]
    assert board.take_rests() == []
    # The slot is done before the grid has answered.
    assert not board.is_last_of(slot, chunks)
    assert board.divided(chunks, 2, is_cut=True)
    assert board.open_leases() == [chunks]


def test_a_slot_that_runs_longer_than_the_division_of_its_lease_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    board, slot, chunks = stuck_behind(monkeypatch, 4)
    assert board.take_rests() == [(chunks, 2)]
    assert not board.divided(chunks, 2, is_cut=True)
    assert board.is_last_of(slot, chunks)


def test_the_rest_of_a_lease_that_stays_whole_is_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    board, slot, chunks = stuck_behind(monkeypatch, 4)
    assert board.take_rests() == [(chunks, 2)]
    assert not board.divided(chunks, 2, is_cut=False)
    assert board.take_rests() == [], "the grid is asked once"
    assert not board.is_last_of(slot, chunks)
    assert board.take(slot) == (chunks, [2])
    assert board.take(slot) == (chunks, [3])


def test_the_rest_of_a_lease_that_is_lost_or_drained_meanwhile_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    board, slot, chunks = stuck_behind(monkeypatch, 4)
    assert board.take_rests() == [(chunks, 2)]
    board.lose(chunks)
    assert not board.is_last_of(slot, chunks)
    assert board.divided(chunks, 2, is_cut=False)
    board, slot, chunks = stuck_behind(monkeypatch, 4)
    assert board.take_rests() == [(chunks, 2)]
    assert board.drain() == [] and board.kill_all() == []
    assert not board.is_last_of(slot, chunks)
    assert board.divided(chunks, 2, is_cut=False)


def test_tasks_that_a_slot_puts_back_are_ready_and_go_back_if_they_are_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boards, "PATIENCE", 0.0)
    board, chunks = Board(2), lease("chunks", 8, is_chunks=True)
    slots: list[Any] = [IdleSlot(), IdleSlot()]
    assert board.put(chunks)
    assert [board.take(slot) for slot in slots] == [(chunks, [0, 1]), (chunks, [2, 3])]
    board.put_back(chunks, [3])
    board.put_back(chunks, [1])
    assert board.take_rests() == [(chunks, 3)]
    # Tasks that are put back meanwhile wait for the answer.
    chunks.tasks = chunks.tasks[:3]
    assert board.take_rests() == [] and not board.divided(chunks, 3, is_cut=True)
    assert not board.is_last_of(slots[1], chunks)
    assert board.take(slots[1]) == (chunks, [1])
    board.lose(chunks)
    board.put_back(chunks, [1])
    assert board.is_last_of(slots[1], chunks) is False and board.is_last_of(slots[0], chunks)


def test_tasks_of_a_lease_that_goes_back_do_not_begin_when_they_are_put_back() -> None:
    board, chunks = Board(2), lease("chunks", 8, is_chunks=True)
    slots: list[Any] = [IdleSlot(), IdleSlot()]
    assert board.put(chunks)
    assert [board.take(slot) for slot in slots] == [(chunks, [0, 1]), (chunks, [2, 3])]
    # The second slot gets no process.
    board.give_up(chunks)
    assert not board.is_last_of(slots[1], chunks)
    board.put_back(chunks, [1])
    assert not board.has_ready_chunks()
    assert board.is_last_of(slots[0], chunks)


def test_a_lease_whose_tasks_are_all_put_back_keeps_one(monkeypatch: pytest.MonkeyPatch) -> None:
    board, slot, chunks = stuck_behind(monkeypatch, 4)
    board.put_back(chunks, [0, 1])
    assert board.take_rests() == [(chunks, 1)]
    chunks.tasks = chunks.tasks[:1]
    assert not board.divided(chunks, 1, is_cut=True)
    assert board.take(slot) == (chunks, [0])


@pytest.mark.parametrize(
    ("status", "is_cut", "targets"),
    [
        (204, True, ["release", "complete"]),
        # The coordinator cannot divide the lease, or not know how to: the outcomes that are there are not all.
        (400, False, ["release", "release"]),
        (404, False, ["release", "release"]),
        (422, False, ["release", "release"]),
        (409, None, ["release"]),
    ],
)
def test_a_lease_whose_rest_is_handed_back_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch, status: int, is_cut: bool | None, targets: list[str]
) -> None:
    monkeypatch.setattr(service, "Watcher", lambda _context: None)
    asked: list[str] = []
    with serving(lambda *_: True, answering(status, b"{}"), answering(204), targets=asked) as (url, _):
        worker = Worker(Config(url, "one", 1))
        board, slot, chunks = stuck_behind(monkeypatch, 4)
        worker._board = board
        chunks.name = {"worker_id": "one", "job": "job", "first": 0, "beyond": 4}
        chunks.outcomes = {0: "0", 1: "1"}
        with closing(worker._coordinator):
            rests = board.take_rests()
            assert not board.is_last_of(slot, chunks)
            if is_cut is False:
                # No slot runs the rest after all.
                board.drain()
            for rest in rests:
                worker._hand_back_rest(*rest)
    assert asked == [f"/v1/worker/tasks/chunks/{what}" for what in targets]
    kept = 4 if is_cut is False else 2
    assert chunks.name["beyond"] == kept
    assert len(chunks.tasks) == (2 if is_cut else 4)
    assert chunks.is_lost == (is_cut is None)
    assert board.open_leases() == []


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_lease_whose_rest_is_refused_for_long_stays_whole_and_is_reported(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(service, "Watcher", lambda _context: None)
    monkeypatch.setattr(claims, "REPORT_FOR", 0.0)
    asked: list[str] = []
    with serving(lambda *_: True, answering(status), answering(204), targets=asked) as (url, _):
        worker = Worker(Config(url, "one", 1))
        board, slot, chunks = stuck_behind(monkeypatch, 4)
        worker._board = board
        chunks.name = {"worker_id": "one", "job": "job", "first": 0, "beyond": 4}
        chunks.outcomes = dict.fromkeys(range(4), "0")
        with closing(worker._coordinator):
            (rest,) = board.take_rests()
            assert not board.is_last_of(slot, chunks)
            # No slot runs the rest once more.
            board.drain()
            worker._hand_back_rest(*rest)
    assert asked == [f"/v1/worker/tasks/chunks/{what}" for what in ("release", "complete")]
    assert chunks.name["beyond"] == len(chunks.tasks) == 4
    assert not chunks.is_lost and board.open_leases() == []


def test_the_rests_of_several_leases_go_back_without_waiting_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "Watcher", lambda _context: None)
    worker = Worker(Config("http://127.0.0.1:9", "one", 1))
    rests = [(lease(attempt, 4, is_chunks=True), 2) for attempt in ("first", "second")]
    both, answered = threading.Barrier(len(rests)), list[str]()

    class Divided:
        """In place of the board, and of a coordinator that answers when both requests have come."""

        def take_waiting(self) -> list[Lease]:
            return []

        def take_rests(self) -> list[tuple[Lease, int]]:
            return [rests.pop() for _ in range(len(rests))]

        def open_leases(self) -> list[Lease]:
            return []

        def hand_back_rest(self, _lease: Lease, _kept: int) -> bool:
            both.wait(DEADLINE)
            return True

        def divided(self, lease: Lease, _kept: int, _is_cut: bool) -> bool:
            answered.append(lease.attempt)
            return False

    parts: Any = Divided()
    worker._board = worker._coordinator = parts
    renewals = worker._thread("renewals", worker._renew)
    eventually("both are answered", lambda: sorted(answered) == ["first", "second"])
    worker._stopping.set()
    renewals.join(DEADLINE)
    assert worker._failed is None


def test_single_calls_are_asked_for_between_chunks_that_keep_every_slot_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "SINGLES_INTERVAL", 1e9)
    board = Board(1)
    slot: Any = IdleSlot()
    wanted: list[int | None] = []

    def asking() -> threading.Thread:
        thread = threading.Thread(target=lambda: wanted.append(board.wanted_singles()), daemon=True)
        thread.start()
        return thread

    chunks = lease("chunks", 32, is_chunks=True)
    assert board.put(chunks) and board.take(slot) == (chunks, list(range(16)))
    asking().join(DEADLINE)
    assert wanted == [0]
    # Nothing was found: the next claim comes after the interval.
    assert not board._is_turn_of_singles()
    assert board.take(slot) is not None and not board._is_turn_of_singles()
    # A call is found, and goes first.
    single = lease("single", 1, is_chunks=False)
    assert board.put(single) and not board._is_turn_of_singles()
    assert board.take(slot) == (single, [0])
    # Then it is the turn of chunks.
    assert board.has_ready_chunks() and not board._is_turn_of_singles()
    waiting = asking()
    assert board.take(slot) is not None
    waiting.join(DEADLINE)
    assert wanted == [0, 0]


def test_a_slot_that_is_done_with_a_single_call_fetches_the_next_one_unless_chunks_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "Watcher", lambda _context: None)
    worker = Worker(Config("http://127.0.0.1:9", "one", 1))
    fetched: list[bool] = []

    class Told:
        """In place of the coordinator."""

        def complete(self, _lease: Lease, _results: list[str], claim: object) -> None:
            fetched.append(claim is not None)

    coordinator: Any = Told()
    worker._coordinator = coordinator
    for number in range(2):
        single = lease(f"single-{number}", 1, is_chunks=False)
        single.outcomes = {0: "0"}
        worker._report(single)
        assert worker._board.put(lease("chunks", 1, is_chunks=True))
    assert fetched == [True, False]
