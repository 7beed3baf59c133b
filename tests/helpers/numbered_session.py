"""A session that reconstructs numbered runs, and everything that reached its reconstruction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from numbered_runs import NUMBERS, Delivered, Documents, delivered, documents_of, frames_in, write_files

from bluesky_jit import JITCallback, Session
from bluesky_jit.messages import FrameKind, ProjectionBlock, RunStop, SessionStatus, SinkMessage
from bluesky_jit.settings import load_settings
from bluesky_jit.tomo.live import FilteredBackprojection

SOON_S = 30.0


class Sink:
    """Keep what a session publishes."""

    def __init__(self) -> None:
        self.messages: list[SinkMessage] = []

    def publish(self, message: SinkMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        pass

    def stop_of(self, uid: str) -> RunStop | None:
        return next((m for m in self.messages if isinstance(m, RunStop) and m.run_uid == uid), None)

    def last_status(self, uid: str) -> SessionStatus:
        """Return a run's last figures: they are published just before its end."""
        stop = next(i for i, m in enumerate(self.messages) if isinstance(m, RunStop) and m.run_uid == uid)
        return next(m for m in self.messages[stop::-1] if isinstance(m, SessionStatus) and m.run_uid == uid)


class Bench:
    """A session that reconstructs, and everything that reached its reconstruction."""

    def __init__(self, session: Session, sink: Sink, files: Path) -> None:
        self.session = session
        self.sink = sink
        self.files = files
        self.callback = JITCallback(session)
        self.blocks: dict[str, list[ProjectionBlock]] = defaultdict(list)

    def documents(self, run: int, *, filed: bool) -> Documents:
        return documents_of(run, self.files if filed else None)

    def send(self, documents: Documents) -> None:
        for name, document in documents:
            self.callback(name, document)

    def wait_until_ended(self, uid: str) -> None:
        assert self.session.wait_for(lambda _: self.sink.stop_of(uid) is not None, SOON_S)

    def frames(self, uid: str, run: int) -> dict[FrameKind, list[int]]:
        """Return the frames of a run that were used, in their order; fail for a frame with another's angle or id."""
        found: dict[FrameKind, list[int]] = {kind: [] for kind in NUMBERS}
        for block in self.blocks[uid]:
            found[block.kind] += frames_in(block, run)
        return found

    def check(self, came: Delivered, run: int) -> None:
        """Require that exactly the frames that came were used, once each, and that the rest was counted."""
        status, frames = self.sink.last_status(came.uid), self.frames(came.uid, run)
        assert {kind: sorted(numbers) for kind, numbers in frames.items()} == {
            kind: sorted(numbers) for kind, numbers in came.frames.items()
        }
        counted = (status.darks, status.flats, status.projections)
        assert counted == tuple(len(came.frames[kind]) for kind in NUMBERS)
        assert status.frames_received == sum(counted)
        assert status.frames_lost == came.known_lost

    def check_that_the_next_run_works(self, *, filed: bool) -> None:
        documents = self.documents(0, filed=filed)
        [whole] = delivered(documents)
        self.send(documents)
        self.wait_until_ended(whole.uid)
        status = self.sink.last_status(whole.uid)
        assert self.frames(whole.uid, 0) == {kind: list(range(n)) for kind, n in NUMBERS.items()}
        assert (status.frames_received, status.frames_lost, status.message) == (sum(NUMBERS.values()), 0, "")


@contextmanager
def numbered_session(files: Path) -> Iterator[Bench]:
    """Run a session without learning; two runs lie in the folder."""
    for run in range(2):
        write_files(files, run)
    wanted = load_settings(environment={}, learn={"enabled": False}, intake={"file_patience_s": 0.05})
    sink = Sink()
    with pytest.MonkeyPatch.context() as patch, Session(wanted, sinks=[sink]) as session:
        bench = Bench(session, sink, files)
        push = FilteredBackprojection.push

        def noted(reconstruction: FilteredBackprojection, block: ProjectionBlock) -> None:
            push(reconstruction, block)
            bench.blocks[block.run_uid].append(block)

        patch.setattr(FilteredBackprojection, "push", noted)
        yield bench
