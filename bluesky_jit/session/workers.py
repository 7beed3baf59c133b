"""Threads that the kernels borrow: all cores for the job that matters most."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from bluesky_jit.tomo.jobs import Priority

FEW_CORES = 3
"""Up to so many workers the threads leave training pairs to the one that asks for them: frames, slices and the trainer
need the other cores (docs/explanations/threads.md)."""

Task = Callable[[], object]


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Batch:
    """Hold the tasks of one call. All of it changes under the workers' lock only."""

    def __init__(self, tasks: Sequence[Task], priority: Priority, number: int, *, shared: bool) -> None:
        self.shared = shared
        """Whether others than the caller take of its tasks."""
        self.urgency = (priority, number)
        self._tasks = tasks
        self._started = 0
        self._running = 0
        self.error: BaseException | None = None

    @property
    def waiting(self) -> bool:
        """Tell whether there are tasks that nobody has begun."""
        return self._started < len(self._tasks)

    @property
    def done(self) -> bool:
        return not (self.waiting or self._running)

    def take(self) -> Task:
        """Return the next task, which is then running."""
        task = self._tasks[self._started]
        self._started += 1
        self._running += 1
        return task

    def ended(self, error: BaseException | None) -> None:
        """Note that a task has ended; after the first that failed, no other is begun."""
        self._running -= 1
        if error is not None:
            self.error = self.error or error
            self._started = len(self._tasks)


class Workers:
    """Run the tasks of any number of callers, the most urgent first: each caller, helped by a few threads.

    A caller works too, so `n` workers are `n - 1` threads, and one worker is none. Before each task it lets all
    that are more urgent be taken; so a job waits for the tasks that run and for no other less urgent than itself.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"tomo.workers is {n}: give at least 1, which is the thread that asks")
        self._few = n <= FEW_CORES
        self._batches: list[_Batch] = []
        self._changed = threading.Condition()
        self._number = 0
        self._closed = False
        self._threads = [threading.Thread(target=self._help, name=f"jit-worker-{k}", daemon=True) for k in range(1, n)]
        for thread in self._threads:
            thread.start()

    def run(self, tasks: Sequence[Task], priority: Priority) -> None:
        """Return when all tasks are done; raise what the first one to fail raised, when those that run have ended."""
        with self._changed:
            self._number += 1
            shared = not (self._few and priority is Priority.PAIRS)
            batch = _Batch(tasks, priority, self._number, shared=shared)
            self._batches.append(batch)
            self._changed.notify_all()
        try:
            while self._work(batch):
                pass
            with self._changed:
                self._changed.wait_for(lambda: batch.done)
        finally:
            # Also when somebody has interrupted the wait: nobody is to wait for what is left.
            with self._changed:
                self._batches.remove(batch)
                self._changed.notify_all()
        if batch.error is not None:
            raise batch.error

    def close(self, timeout_s: float = 5.0) -> bool:
        """End the threads after the tasks they are at; return whether they did in time. Callers can go on alone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _help(self) -> None:
        while self._work(None):
            pass

    def _work(self, own: _Batch | None) -> bool:
        """Run one task, of the caller's own batch or for a thread of any; return False when there is none left."""
        with self._changed:
            self._changed.wait_for(lambda: self._may_go_on(own))
            batch = self._most_urgent(shared=True) if own is None else own
            if batch is None or not batch.waiting or (own is None and self._closed):
                return False
            task = batch.take()
            # Callers of what is less urgent may have waited for this to be taken.
            self._changed.notify_all()
        error: BaseException | None = None
        try:
            task()
        except BaseException as raised:  # noqa: BLE001 - it is the caller's, whatever it is
            error = raised
        with self._changed:
            batch.ended(error)
            self._changed.notify_all()
        return True

    def _may_go_on(self, own: _Batch | None) -> bool:
        """Tell whether a thread has something to do, or a caller's batch is the most urgent or has been taken."""
        if own is None:
            return self._closed or self._most_urgent(shared=True) is not None
        return not own.waiting or self._most_urgent() is own

    def _most_urgent(self, *, shared: bool = False) -> _Batch | None:
        """Return the batch whose tasks are to be taken next; shared: of those only that a thread may help with."""
        waiting = (batch for batch in self._batches if batch.waiting and (batch.shared or not shared))
        return min(waiting, key=lambda batch: batch.urgency, default=None)
