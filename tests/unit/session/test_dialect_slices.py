"""Every plan, unmodified, gives slices of the right object; an angle of another frame does not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import dialect_runs
import numpy as np
import pytest
from dialect_scan import GEOMETRY, PER_TURN, PHANTOM, STEP_DEG, Emit, N, Scan, simulated_scan

from bluesky_jit import JITCallback, Session
from bluesky_jit.messages import RunStop, SessionStatus, SinkMessage, Update
from bluesky_jit.settings import load_settings

SOON_S = 30.0
ALIKE = 0.85
"""Correlation with the object: 61 noisy projections of it give 0.857."""
UNLIKE = 0.7
SAME = 0.015
"""Slices of the same frames differ by less than this part; those of angles one frame off by more than ten times."""

Dialect = Callable[[Emit, Scan, Path], str]

PLAN: dict[str, Any] = {"tomo": {"angles_per_turn": PER_TURN}}
"""What a plan that records no arc leaves to the settings."""
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "own_step_scan": ("same stream", {}),
    "own_fly_scan": ("same stream", {}),
    "fxi_fly_scan": ("monitored stream", {}),
    "fxi_fly_scan_without_monitor": ("plan arguments", {}),
    "fxi_zebra_scan": ("same stream", {}),
    "hex_fly_scan": ("same stream", {}),
    "bluesky_tomo_plan": ("plan arguments", PLAN),
    "bluesky_step_scan": ("same stream", {"intake": {"plans": ["scan"]}}),
    "unknown_plan": ("same stream", PLAN),
    "monitored_step_scan": ("monitored stream", PLAN),
}
"""Where each one's angles come from, and which settings it needs besides the geometry."""


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulated_scan()


def sliced(dialect: Dialect, scan: Scan, folder: Path, changes: dict[str, Any]) -> tuple[Update, Session]:
    """Feed a run to a session without learning; return its last axial slice."""
    sections: dict[str, dict[str, Any]] = {
        "geometry": {"kind": "parallel", "pixel_mm": 1.0},
        "tomo": {"turns": 0.5},
        "learn": {"enabled": False},
        "slices": {"updates_per_s": 50.0},
        "intake": {},
    }
    for section, values in changes.items():
        sections[section] = {**sections[section], **values}
    with Session(load_settings(environment={}, **sections), sinks=[]) as session:
        uid = dialect(JITCallback(session), scan, folder)
        assert session.wait_for(lambda status: status.run_uid == uid and status.state == "idle", SOON_S)
        update = session.latest("XY", "raw")
        assert update is not None, session.status.message
        assert update.run_uid == uid
        return update, session


def likeness(update: Update) -> float:
    """Return the correlation of a slice with the object that was scanned."""
    truth = PHANTOM.attenuation(update.grid, 0.0, oversample=2)
    inside = np.hypot(*(update.grid.points()[..., axis] for axis in (0, 1))) < 0.8 * GEOMETRY.radius_mm
    return float(np.corrcoef(update.image[inside], truth[inside])[0, 1])


def difference(update: Update, reference: Update) -> float:
    """Return the root mean square difference of two slices, as part of the second one's own variation."""
    return float(np.sqrt(np.mean((update.image - reference.image) ** 2)) / np.std(reference.image))


@pytest.fixture(scope="module")
def reference(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Update:
    """Return the slice of our own plan."""
    update, _ = sliced(dialect_runs.own_fly_scan, scan, tmp_path_factory.mktemp("reference"), {})
    assert likeness(update) > ALIKE
    return update


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_right_object(name: str, scan: Scan, reference: Update, tmp_path: Path) -> None:
    source, changes = DIALECTS[name]
    update, session = sliced(getattr(dialect_runs, name), scan, tmp_path, changes)
    assert likeness(update) > ALIKE
    assert difference(update, reference) < SAME
    assert update.angles.source == source
    status = session.status
    assert (status.projections, status.frames_lost) == (N, 0)


@pytest.mark.parametrize(
    "angles_deg", [STEP_DEG * (np.arange(N) + 1), STEP_DEG * np.arange(N)[::-1]], ids=["shifted", "reversed"]
)
@pytest.mark.parametrize("name", ["own_fly_scan", "fxi_fly_scan", "fxi_zebra_scan", "hex_fly_scan"])
def test_angles_of_other_frames_do_not(
    name: str, angles_deg: np.ndarray, scan: Scan, reference: Update, tmp_path: Path
) -> None:
    update, _ = sliced(getattr(dialect_runs, name), scan.mispaired(angles_deg), tmp_path, {})
    assert likeness(update) < UNLIKE
    assert difference(update, reference) > 10 * SAME


class Sink:
    """Keep what a session publishes."""

    def __init__(self) -> None:
        self.messages: list[SinkMessage] = []

    def publish(self, message: SinkMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        pass


def test_runs_of_two_plans_whose_documents_alternate_are_both_right(
    scan: Scan, reference: Update, tmp_path: Path
) -> None:
    documents: list[list[tuple[str, Any]]] = [[], []]
    for kept, dialect in zip(documents, (dialect_runs.fxi_fly_scan, dialect_runs.monitored_step_scan), strict=True):
        dialect(lambda name, document, kept=kept: kept.append((name, document)), scan, tmp_path)
    sink = Sink()
    settings = load_settings(
        environment={},
        geometry={"kind": "parallel", "pixel_mm": 1.0},
        tomo={"turns": 0.5, "angles_per_turn": PER_TURN},
        learn={"enabled": False},
    )

    def both_have_ended(_: SessionStatus) -> bool:
        return sum(isinstance(message, RunStop) for message in sink.messages) == len(documents)

    with Session(settings, sinks=[sink]) as session:
        callback = JITCallback(session)
        for pair in zip_longest(*documents):
            for document in filter(None, pair):
                callback(*document)
        assert session.wait_for(both_have_ended, SOON_S)
    for [(_, start), *_] in documents:
        updates = [m for m in sink.messages if isinstance(m, Update) and m.run_uid == start["uid"]]
        last = [update for update in updates if (update.slice_name, update.kind) == ("XY", "raw")][-1]
        assert difference(last, reference) < SAME
        figures = [m for m in sink.messages if isinstance(m, SessionStatus) and m.run_uid == start["uid"]][-1]
        assert (figures.projections, figures.frames_lost) == (N, 0)


def test_flats_that_are_retaken_in_mid_run_serve_the_whole_run(scan: Scan, reference: Update, tmp_path: Path) -> None:
    def with_more_flats(emit: Emit, scan: Scan, folder: Path) -> str:
        return dialect_runs.own_step_scan(emit, scan, folder, more_flats_after=20)

    update, _ = sliced(with_more_flats, scan, tmp_path, {})
    assert difference(update, reference) < SAME


def test_frames_beyond_the_monitors_samples_are_left_out_and_counted(scan: Scan, tmp_path: Path) -> None:
    def cut_off(emit: Emit, scan: Scan, folder: Path) -> str:
        return dialect_runs.fxi_fly_scan(emit, scan, folder, monitor_end_s=float(scan.times_s[50]) + 0.03)

    update, session = sliced(cut_off, scan, tmp_path, {"slices": {"size": 16}})
    assert session.status.frames_lost == N - 51
    assert update.angles.last_id == 50
    assert "has no angle" in session.status.message


def test_positions_that_are_not_as_many_as_the_frames_are_not_paired(scan: Scan, tmp_path: Path) -> None:
    def one_pulse_more(emit: Emit, scan: Scan, folder: Path) -> str:
        return dialect_runs.fxi_zebra_scan(emit, scan, folder, more_positions=1)

    with pytest.raises(AssertionError, match="has 62 rows, and there are 61 frames"):
        sliced(one_pulse_more, scan, tmp_path, {})
