"""The worker's token: the shared one, and that of a file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from divvy import Client, _token
from divvy._token import MAX_TOKEN_BYTES, TokenFile
from divvy.worker.cli import token_from_env

from . import functions
from .helpers import DEADLINE, Coordinator, Worker, executing


def test_a_worker_shows_the_token_of_its_file_also_after_it_was_renewed(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    coordinator = start(Coordinator, DIVVY_WORKER_TOKEN="first")
    worker = start(Worker, coordinator, slots=1, DIVVY_WORKER_TOKEN="wrong", DIVVY_WORKER_TOKEN_FILE=str(file))
    worker.ready()
    with Client(coordinator.url) as client, executing(client) as executor:
        assert executor.submit(functions.double, 1).result(DEADLINE) == 2
        for name in ("DIVVY_WORKER_TOKEN", "DIVVY_WORKER_TOKEN_FILE"):
            assert executor.submit(functions.variable, name).result(DEADLINE) is None
        coordinator.kill()
        file.write_text("second")
        addresses = (coordinator.public, coordinator.internal)
        start(Coordinator, coordinator.data_dir, addresses, DIVVY_WORKER_TOKEN="second")
        assert executor.submit(functions.double, 2).result(DEADLINE) == 4
    assert worker.stop() == 0, worker.lines
    assert not any(token in line for line in worker.lines for token in ("first", "second", "wrong"))


def test_a_file_that_has_no_token_any_more_leaves_the_one_read_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text(" first\n")
    file = TokenFile(str(path))
    assert file.token() == "first"
    for broken in ("", "two words", "x" * (MAX_TOKEN_BYTES + 1)):
        path.write_text(broken)
        assert file.token() == "first"
    path.unlink()
    assert file.token() == "first"
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 4 and all("stays in use" in line and "two words" not in line for line in warned)
    # As kubelet renews it: the name leads to another file.
    renewed = tmp_path / "renewed"
    renewed.write_text("second\n", encoding="utf-8-sig")
    renewed.rename(path)
    assert file.token() == "second"


def test_a_file_that_fails_once_to_be_read_is_read_again_although_it_does_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    file = TokenFile(str(path))
    path.write_text("second")
    read, failures = _token._read, [ValueError("too many open files")]

    def fail_once(name: str) -> str:
        if failures:
            raise failures.pop()
        return read(name)

    monkeypatch.setattr(_token, "_read", fail_once)
    assert [file.token(), file.token()] == ["first", "second"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), ("", "is empty"), ("hush hush", "visible ASCII"), ("x" * 9000, "longer than 8192")],
)
def test_a_worker_does_not_start_without_the_token_that_it_was_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, words: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("DIVVY_WORKER_TOKEN_FILE", str(path))
    with pytest.raises(ValueError, match=words) as refused:
        token_from_env()
    assert "DIVVY_WORKER_TOKEN_FILE" in str(refused.value) and "hush" not in str(refused.value)
