"""``GridExecutor``: ``concurrent.futures`` on a grid.

A call is pickled in ``submit``, so that what cannot be pickled fails there. One thread sends calls, many as one job;
another collects outcomes. Both end when there is nothing to do, and keep the interpreter from ending before that.
"""

from __future__ import annotations

import itertools
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ._engine import Call, Engine, GridFuture, JobOptions
from .calls import MAX_ATTEMPTS, MAX_TIMEOUT, chunk_call, chunk_head, common_fields, single_call, words_of
from .client import Client
from .errors import NotPicklable, PayloadTooLarge

if TYPE_CHECKING:
    from . import models

P = ParamSpec("P")
T = TypeVar("T")

#: The longest call, as JSON. The grid takes jobs of ``DIVVY_MAX_JOB_BYTES``, 64 MiB by default.
MAX_CALL_BYTES = 32 * 1024 * 1024


#: Chunks of a map that are queued together, before the next ones are pickled.
MAP_PART = 200


class GridExecutor(Executor):
    """Runs calls on the Python workers of a grid.

    ``grid`` is a URL, a ``Client``, or None for ``DIVVY_URL``. ``priority``, ``tags``, ``affinity`` and ``requires``
    are those of the jobs that carry the calls. A call whose process ends is tried ``max_attempts`` times, and so is
    one that takes longer than ``task_timeout`` seconds; what a call raises is never tried again. The grid may run a
    call twice, when a worker is lost, late or stopped: calls should do no harm then.

    ``initializer(*initargs)`` runs in each worker process before its first call; if it fails, the executor is broken.
    A call may take ``max_call_bytes`` as JSON. ``token`` is that of the ``Client`` which the executor makes of a URL.
    """

    def __init__(
        self,
        grid: str | Client | None = None,
        *,
        token: str | None = None,
        priority: int | None = None,
        tags: Mapping[str, str] | None = None,
        affinity: models.Affinity | None = None,
        requires: models.Requirements | None = None,
        max_attempts: int = 4,
        task_timeout: float | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        max_call_bytes: int = MAX_CALL_BYTES,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if not 1 <= max_attempts <= MAX_ATTEMPTS:
            raise ValueError(f"max_attempts must be from 1 to {MAX_ATTEMPTS}")
        if task_timeout is not None and not 0 < task_timeout <= MAX_TIMEOUT:
            raise ValueError(f"task_timeout must be seconds above 0 and up to {MAX_TIMEOUT:.0f}")
        self.id = str(uuid.uuid4())
        self._max_call_bytes = max_call_bytes
        self._common = _picklable(
            common_fields,
            attempts=max_attempts,
            timeout=task_timeout,
            session=self.id,
            initializer=None if initializer is None else (initializer, tuple(initargs)),
        )
        client, owns_client = (grid, False) if isinstance(grid, Client) else (Client(grid, token=token), True)
        self.client = client
        options = JobOptions(
            priority=priority,
            tags={**(tags or {}), "python-executor": self.id},
            affinity=affinity,
            requires=requires,
            max_attempts=max_attempts,
        )
        self._engine = Engine(client, options, owns_client=owns_client)
        # Its threads refer to the engine only, so that an unused executor is collected and shut down.
        weakref.finalize(self, self._engine.shut_down).atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedules ``fn(*args, **kwargs)``.

        Raises ``NotPicklable``, ``PayloadTooLarge``, and what the standard library does: ``RuntimeError`` after a
        shutdown, ``BrokenExecutor`` when the executor is broken.
        """
        self._engine.check_open()
        payload = _picklable(single_call, self._common, fn, args, kwargs)
        return self._enqueue([payload], is_chunk=False)[0]

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Results of ``fn`` over the iterables, in order.

        ``chunksize`` items travel as one task, whose results come together. The iterables are read at once, or with
        ``buffersize`` only so far that at most so many tasks are under way or wait to be read: in constant memory.
        Calls of one map may share a worker's claim, so none of them may wait for another's result.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        self._engine.check_open()
        until = None if timeout is None else time.monotonic() + timeout
        zipped = zip(*iterables)  # noqa: B905 (as the standard library's map)
        chunks = iter(lambda: list(itertools.islice(zipped, chunksize)), [])
        head = _picklable(chunk_head, self._common, fn)
        payloads = (_picklable(chunk_call, head, chunk) for chunk in chunks)
        first = itertools.islice(payloads, buffersize)
        futures: deque[GridFuture] = deque()
        try:
            while part := list(itertools.islice(first, MAP_PART)):
                futures.extend(self._enqueue(part, is_chunk=True))
        except BaseException:
            # Nobody gets their results.
            for future in futures:
                future.cancel()
            raise
        return _results(self if buffersize is not None else None, futures, payloads, until)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; waits for the submitted ones, or cancels those that do not run.

        A call that is on its way to the grid may begin before the grid hears of its cancel. Its job is canceled as soon
        as it has arrived if all its calls are canceled, which kills those that have begun.
        """
        self._engine.shut_down(cancel_futures=cancel_futures)
        if wait:
            self._engine.join()

    def kill_workers(self) -> None:
        """Ends the executor without waiting, and kills the processes that run its calls.

        Calls that wait are canceled, futures of running ones end with ``BrokenExecutor``, and no more calls are taken,
        as with the ``ProcessPoolExecutor`` of Python 3.14. The workers go on with the calls of other executors.
        """
        self._engine.kill()

    def terminate_workers(self) -> None:
        """Does the same as ``kill_workers``: a worker ends a call in one way."""
        self._engine.kill()

    def _enqueue(self, payloads: list[str], *, is_chunk: bool) -> list[GridFuture]:
        for payload in payloads:
            if len(payload) > self._max_call_bytes:
                raise PayloadTooLarge(
                    413, f"the call takes {len(payload)} bytes, and max_call_bytes is {self._max_call_bytes}"
                )
        calls = [Call(payload, GridFuture(), is_chunk) for payload in payloads]
        self._engine.enqueue(calls)
        return [call.future for call in calls]


def _picklable(pickling: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``pickling``. An exception of pickle becomes ``NotPicklable``, with the original as its cause."""
    try:
        return pickling(*args, **kwargs)
    except ImportError:
        raise
    except Exception as error:
        raise NotPicklable(f"the call cannot be pickled: {type(error).__name__}: {words_of(error)}") from error


def _results(
    executor: GridExecutor | None, futures: deque[GridFuture], more: Iterator[str], until: float | None
) -> Iterator[Any]:
    """The results of ``futures`` and of the payloads of ``more``, which ``executor`` submits one by one."""
    try:
        while futures:
            if executor is not None:
                if (payload := next(more, None)) is not None:
                    futures.extend(executor._enqueue([payload], is_chunk=True))
                else:
                    executor = None
            left = None if until is None else until - time.monotonic()
            future = futures.popleft()
            try:
                values, error = future.result(left)
            finally:
                # Without effect once it is done.
                future.cancel()
            del future
            # A value that was taken is not kept alive here.
            values.reverse()
            while values:
                yield values.pop()
            if error is not None:
                raise error
    finally:
        for future in futures:
            future.cancel()
