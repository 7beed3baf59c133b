"""A few threads share the kernels' tasks: the most urgent first, and whoever waits works."""

import threading

import pytest

from bluesky_jit import Session
from bluesky_jit.session.workers import Workers, available_cores
from bluesky_jit.settings import load_settings
from bluesky_jit.tomo.jobs import Priority

PATIENCE_S = 20


class Gate:
    """Hold tasks until the test lets them go on, and say when so many have come."""

    def __init__(self):
        self._changed = threading.Condition()
        self._open = False
        self._arrived = 0

    def pass_through(self):
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open, PATIENCE_S)

    def wait_until_arrived(self, n=1):
        with self._changed:
            assert self._changed.wait_for(lambda: self._arrived >= n, PATIENCE_S)

    def open(self):
        with self._changed:
            self._open = True
            self._changed.notify_all()


def caller(workers, tasks, priority):
    """Ask in a thread of its own, and keep what was raised."""
    raised = []

    def ask():
        try:
            workers.run(tasks, priority)
        except Exception as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.raised = raised
    thread.start()
    return thread


def wait_until_asked(workers, n):
    with workers._changed:
        assert workers._changed.wait_for(lambda: len(workers._batches) >= n, PATIENCE_S)


def worker_names():
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("jit-worker")}


@pytest.fixture
def two():
    with Workers(2) as workers:
        yield workers


@pytest.mark.parametrize("n", [1, 2, 4])
def test_every_task_runs_once(n):
    done = []
    with Workers(n) as workers:
        assert worker_names() == {f"jit-worker-{k}" for k in range(1, n)}
        workers.run([lambda k=k: done.append(k) for k in range(100)], Priority.SHOWN)
        assert sorted(done) == list(range(100))
        workers.run([], Priority.SHOWN)
    assert not worker_names()


def test_tasks_run_at_once_in_the_caller_and_in_the_threads():
    gate = Gate()
    with Workers(3) as workers:
        asking = caller(workers, [gate.pass_through] * 3, Priority.SHOWN)
        gate.wait_until_arrived(3)
        gate.open()
        asking.join(PATIENCE_S)
        assert not asking.is_alive()


def test_one_worker_is_the_calling_thread():
    names = []
    with Workers(1) as workers:
        workers.run([lambda: names.append(threading.current_thread().name)], Priority.PAIRS)
    assert names == [threading.current_thread().name]


def test_an_urgent_job_overtakes_between_tasks(two, monkeypatch):
    monkeypatch.setattr(two, "_few", False)
    order, busy, held = [], Gate(), Gate()

    def tasks(name, gates=()):
        return [*gates, *[lambda: order.append(name)] * 5]

    preview = caller(two, tasks("preview", [busy.pass_through] * 2), Priority.PREVIEW)
    busy.wait_until_arrived(2)
    # These callers are held in their own first task, so that only the preview's two threads are free to go on.
    others = [caller(two, tasks("pairs", [held.pass_through]), Priority.PAIRS)]
    held.wait_until_arrived(1)
    others.append(caller(two, tasks("shown", [held.pass_through]), Priority.SHOWN))
    held.wait_until_arrived(2)
    busy.open()
    preview.join(PATIENCE_S)
    held.open()
    for thread in (preview, *others):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    # The last pairs may be under way when the preview goes on.
    assert order[:9] == ["shown"] * 5 + ["pairs"] * 4
    assert sorted(order[9:]) == ["pairs"] + ["preview"] * 5


def test_with_few_cores_pairs_are_left_to_the_thread_that_asks(two):
    names, held = [], Gate()
    # Something else is under way, so that the other thread is awake.
    other = caller(two, [held.pass_through] * 2, Priority.SHOWN)
    held.wait_until_arrived(2)
    held.open()
    two.run([lambda: names.append(threading.current_thread().name)] * 50, Priority.PAIRS)
    other.join(PATIENCE_S)
    assert set(names) == {threading.current_thread().name}


def test_jobs_as_urgent_as_each_other_go_in_the_order_they_came():
    order, busy = [], Gate()
    with Workers(1) as workers:
        first = caller(workers, [busy.pass_through, *[lambda: order.append("first")] * 3], Priority.SHOWN)
        busy.wait_until_arrived()
        second = caller(workers, [lambda: order.append("second")] * 3, Priority.SHOWN)
        wait_until_asked(workers, 2)
        busy.open()
        first.join(PATIENCE_S)
        second.join(PATIENCE_S)
    assert order[:2] == ["first"] * 2
    assert sorted(order) == ["first"] * 3 + ["second"] * 3


def test_an_exception_reaches_the_caller_when_the_running_tasks_have_ended(two):
    gate, done = Gate(), []

    def fail():
        gate.wait_until_arrived()
        raise ArithmeticError("no")

    def other():
        gate.pass_through()
        done.append("other")

    asking = caller(two, [other, fail, lambda: done.append("never")], Priority.SHOWN)
    gate.wait_until_arrived()
    gate.open()
    asking.join(PATIENCE_S)
    assert [str(error) for error in asking.raised] == ["no"]
    assert done == ["other"]
    # The workers are as good as before.
    two.run([lambda: done.append("again")] * 3, Priority.SHOWN)
    assert done == ["other", *["again"] * 3]


def test_a_failed_job_does_not_harm_another(two):
    done = []

    def fail():
        raise ArithmeticError("no")

    failing = [caller(two, [fail] * 4, Priority.SHOWN) for _ in range(3)]
    two.run([lambda: done.append(1)] * 20, Priority.PAIRS)
    for thread in failing:
        thread.join(PATIENCE_S)
        assert len(thread.raised) == 1
    assert len(done) == 20


def test_after_the_end_callers_go_on_alone():
    workers = Workers(3)
    assert workers.close()
    assert workers.close()
    names = []
    workers.run([lambda: names.append(threading.current_thread().name)] * 3, Priority.SHOWN)
    assert set(names) == {threading.current_thread().name}


def test_closing_waits_for_the_tasks_that_run():
    gate = Gate()
    workers = Workers(2)
    asking = caller(workers, [gate.pass_through] * 2, Priority.SHOWN)
    gate.wait_until_arrived(2)
    assert not workers.close(timeout_s=0.01)
    gate.open()
    assert workers.close()
    asking.join(PATIENCE_S)
    assert not asking.is_alive()


@pytest.mark.parametrize(("setting", "n"), [(3, 3), (1, 1), (None, available_cores())])
def test_a_session_has_the_workers_that_its_settings_ask_for(setting, n):
    settings = load_settings(environment={}, tomo={"workers": setting}, learn={"enabled": False})
    with Session(settings, sinks=[]):
        assert len(worker_names()) == n - 1
    assert not worker_names()


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match=r"tomo\.workers is 0: give at least 1"):
        Workers(0)
