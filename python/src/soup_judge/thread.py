"""The one thread of a judge, and the calls that wait for it.

Frameworks prefer one thread: CUDA contexts, thread-local modes and pools of threads belong to it. So handlers of calls
run nothing of the judge; they submit a job and pass on what it sends.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from soup_judge.errors import Cancelled

MOST_WAITING = 64
"""Messages that are made but not sent; a judge that is faster than its worker waits."""


class _Ended:
    pass


class Call:
    """One call of a worker: messages from the judge's thread to the handler, and word of cancellation the other way."""

    def __init__(self) -> None:
        self._messages: queue.Queue[Any] = queue.Queue(MOST_WAITING)
        self._cancelled = threading.Event()
        self.error: BaseException | None = None
        """What the judge raised, when there are no messages any more."""

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._cancelled.set()
        with contextlib.suppress(queue.Full):
            # Wakes the handler.
            self._messages.put_nowait(_Ended())

    def check(self) -> None:
        """Raises `Cancelled` where nobody waits any more."""
        if self._cancelled.is_set():
            raise Cancelled

    def send(self, message: Any) -> None:
        """Hands a message on. Raises `Cancelled` where nobody takes it any more."""
        while True:
            self.check()
            with contextlib.suppress(queue.Full):
                return self._messages.put(message, timeout=0.1)

    def offer(self, message: Any) -> None:
        """Hands a message on, unless others wait: of progress the oldest is good enough."""
        with contextlib.suppress(queue.Full):
            if self._messages.empty():
                self._messages.put_nowait(message)

    def end(self, error: BaseException | None) -> None:
        """The last thing that the judge's thread does for a call."""
        self.error = error
        with contextlib.suppress(Cancelled):
            self.send(_Ended())

    def messages(self) -> Iterator[Any]:
        """What the judge sends, until it has ended or the call is cancelled."""
        while not self._cancelled.is_set():
            message = self._messages.get()
            if isinstance(message, _Ended):
                return
            yield message


class JudgeThread:
    """Runs jobs one after the other in a thread of their own."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A judge in the middle of a computation does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)
        self._thread.start()

    def submit(self, call: Call, job: Callable[[Call], None]) -> None:
        """Runs `job(call)` when all jobs before it have ended, and ends the call with what it raises."""

        def run() -> None:
            try:
                call.check()
                job(call)
            except Cancelled:
                error: BaseException | None = None
            except BaseException as raised:
                error = raised
            else:
                error = None
            call.end(error)

        self._jobs.put(run)

    def close(self, timeout: float) -> bool:
        """Ends the thread after the jobs before; whether it has ended within `timeout` seconds."""
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            # A job holds its call, and a call what was loaded in it.
            del job
