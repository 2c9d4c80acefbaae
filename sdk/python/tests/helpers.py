"""Real coordinators and Python workers as processes, ended by their ids."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from divvy import Client, GridExecutor

T = TypeVar("T")

#: The standard library's own was another class before Python 3.11.
TIMED_OUT = (TimeoutError, concurrent.futures.TimeoutError)

ROOT = Path(__file__).resolve().parents[3]
SDK = ROOT / "sdk" / "python"

#: The command, for tests of `divvy up`.
COMMAND = Path(os.environ.get("DIVVY_BINARY") or ROOT / "target" / "debug" / "divvy")

#: Nothing that a test waits for takes longer on a busy machine.
DEADLINE = 60.0


def eventually(what: str, look: Callable[[], T | None], deadline: float = DEADLINE) -> T:
    """The first value of ``look`` that is true."""
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline} s: {what}")


_addresses = itertools.count(1)


def own_address() -> str:
    """A loopback address that nobody else uses.

    A port of it stays free while nothing listens on it. One of 127.0.0.1 does not: any connection that is opened on the
    machine may take it as its local port meanwhile, even a connection to this very port.
    """
    number = next(_addresses)
    assert number < 256, "eight bits of the address tell the listeners of one process apart"
    process = os.getpid() & 0xFFFF
    return f"127.{number}.{process >> 8}.{process & 0xFF}"


def processes_of_session(session: int) -> list[int]:
    """The processes of a session that are there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name of the program, in parentheses, may have spaces.
            _state, _parent, _group, of_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of_session) == session:
                found.append(int(stat.parent.name))
    return found


def parent_of(pid: int) -> int:
    """The parent of a process that is there."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def dead_url() -> str:
    """A URL at which nothing answers."""
    return f"http://{own_address()}:9"


class Process:
    """A process whose stderr and stdout are kept."""

    def __init__(self, command: list[str], variables: Mapping[str, str]) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DIVVY_")}
        self.process = subprocess.Popen(
            # It minds the end of its terminal also where these tests ignore it, as below `nohup`.
            ["/usr/bin/env", "--default-signal=HUP", *command],
            env={**environment, "PYTHONPATH": str(SDK), "PYTHONUNBUFFERED": "1", **variables},
            cwd=SDK,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A group of its own, whose number is the process's.
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status of the process, whose end it waits for."""
        status = self.process.wait(timeout=DEADLINE)
        self._reader.join(timeout=5.0)
        return status

    def kill(self) -> None:
        """Ends it at once, and waits until it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        if self._reader.is_alive():
            # Children that outlive it hold its output, such as workers of `divvy up`, which have groups of their own.
            for process in processes_of_session(self.pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._reader.join(timeout=DEADLINE)
        assert not self._reader.is_alive(), "something still has its output"
        if self.process.stdout is not None:
            self.process.stdout.close()

    def logged(self, text: str) -> str:
        """The first line with a text, when there is one. Fails at once where the process has ended without it."""

        def look() -> str | None:
            has_ended = not self._reader.is_alive()
            found = next((line for line in self.lines if text in line), None)
            assert found or not has_ended, f"it has ended and did not log {text!r}"
            return found

        try:
            return eventually(f"it logs {text!r}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.lines}") from None


class Coordinator(Process):
    """A ``divvy-coordinator`` at a loopback address of its own, with data that outlives it."""

    def __init__(self, data_dir: str | None = None, addresses: tuple[str, str] | None = None, **variables: str) -> None:
        self._own_dir = tempfile.TemporaryDirectory(prefix="divvy-test-") if data_dir is None else None
        self.data_dir = data_dir or str(self._own_dir and self._own_dir.name)
        self._variables = variables
        public, internal = addresses or (f"{own_address()}:0",) * 2
        binary = os.environ.get("DIVVY_COORDINATOR_BINARY") or str(ROOT / "target" / "debug" / "divvy-coordinator")
        super().__init__(
            [binary],
            {
                "DIVVY_PUBLIC_ADDR": public,
                "DIVVY_INTERNAL_ADDR": internal,
                "DIVVY_DATA_DIR": self.data_dir,
                "DIVVY_LOG_FORMAT": "json",
                **variables,
            },
        )
        try:
            serving = json.loads(self.logged('"serving"'))
        except BaseException:
            self.kill()
            raise
        self.public, self.internal = serving["public"], serving["internal"]
        scheme = "https" if "DIVVY_TLS_CERT" in variables else "http"
        self.url, self.internal_url = f"{scheme}://{self.public}", f"{scheme}://{self.internal}"

    def start_again(self) -> Coordinator:
        """Another one on the same data and ports, when this one has ended."""
        return Coordinator(self.data_dir, (self.public, self.internal), **self._variables)

    def close(self) -> None:
        self.kill()
        if self._own_dir is not None:
            self._own_dir.cleanup()


class Worker(Process):
    """A Python worker."""

    def __init__(
        self, coordinator: Coordinator, *options: str, slots: int = 2, python: str = sys.executable, **variables: str
    ) -> None:
        command = [python, "-m", "divvy.worker", "--coordinator", coordinator.internal_url, "--slots", str(slots)]
        super().__init__([*command, *options], variables)

    def ready(self) -> Worker:
        """This worker, after its first line about fetching."""
        self.logged("fetches from")
        return self

    def stop(self) -> int:
        """Sends SIGTERM, and waits for the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()


def is_alive(pid: int) -> bool:
    """Whether a process is there and not only waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def jobs_of(client: Client, executor_id: str) -> list[Any]:
    """The jobs of an executor."""
    return list(client.jobs(tag=f"python-executor:{executor_id}"))


def read(path: Path) -> str | None:
    """The content of a file, if it is there."""
    return path.read_text() if path.exists() else None


@contextmanager
def executing(grid: str | Client, **options: Any) -> Iterator[GridExecutor]:
    """An executor that is waited for only if the block succeeds: what it waits for may never come else."""
    executor = GridExecutor(grid, **options)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


@contextmanager
def together(executor: GridExecutor) -> Iterator[None]:
    """All calls that the block submits become one job: none is sent before the last one is there."""
    with executor._engine._changed:
        yield


class Proxy:
    """Passes connections on to an address. Takes TLS with a ``context``; ``alter`` changes what passes."""

    def __init__(
        self, address: str, context: ssl.SSLContext | None = None, alter: Callable[[bytes], bytes] = bytes
    ) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._context = context
        self._alter = alter
        # Certificates are for `localhost`.
        scheme, name, host = ("https", "localhost", "127.0.0.1") if context else ("http", *[own_address()] * 2)
        self._listener = socket.create_server((host, 0))
        self.url = f"{scheme}://{name}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with suppress(OSError), accepted, socket.create_connection(self._target) as target:
            client = self._context.wrap_socket(accepted, server_side=True) if self._context else accepted
            with client:
                back = threading.Thread(target=self._pass_on, args=(target, client), daemon=True)
                back.start()
                self._pass_on(client, target)
                back.join(5.0)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(self._alter(data))
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def answering(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer of a service."""
    lines = [
        f"HTTP/1.1 {status} Status",
        f"content-length: {len(body)}",
        *(f"{key}: {headers[key]}" for key in headers),
    ]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def read_request(requests: IO[bytes]) -> str | None:
    """The target of a request, read as a whole, however many packets it came in; None at the connection's end."""
    _, _, first = requests.readline().partition(b" ")
    length = 0
    while (line := requests.readline()) != b"\r\n":
        if not line:
            return None
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return first.split(b" ")[0].decode() if len(requests.read(length)) == length else None


@contextmanager
def serving(
    answer_to: Callable[[int, int], bool], *answers: bytes, targets: list[str] | None = None
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """A service that answers, or closes its connection where ``answer_to(connection, request)`` is false.

    It gives one of ``answers`` after the other, and then the last one for ever. ``targets`` gets those of the requests.
    """
    seen: list[tuple[int, int]] = []
    given = answers or (answering(204),)

    def serve(number: int, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as requests:
            request = 0
            while (target := read_request(requests)) is not None:
                if targets is not None:
                    targets.append(target)
                seen.append((number, request))
                if not answer_to(number, request):
                    return
                connection.sendall(given[min(len(seen), len(given)) - 1])
                request += 1

    def accept(listener: socket.socket) -> None:
        number = 0
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(number, connection), daemon=True).start()
                number += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)
