"""Which leases a worker still has to hand back when it gives up what runs."""

from __future__ import annotations

from typing import Any

from divvy.worker.board import Board
from divvy.worker.claims import Lease, Source


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
