"""What arc a run covers, and how large a window it asks for, from the start document to the slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from simulated_run import ANGLES, PHANTOM, TOMO, emit_run, frames

from bluesky_jit import JITCallback, Session
from bluesky_jit.intake.setup import planned_arc_rad_of, window_length_of
from bluesky_jit.messages import SessionStatus, SinkMessage, Update
from bluesky_jit.settings import load_settings
from bluesky_jit.tomo.geometry import ConeGeometry
from sim_devices.physics import Detector, DetectorPhysics

SOON_S = 30.0
CONE = ConeGeometry(n_u=64, n_v=48, pixel_mm=2.2, source_axis_mm=150.0, source_detector_mm=300.0)
CONE_TOMO = {
    **TOMO,
    "geometry": "cone",
    "pixel_mm": CONE.pixel_mm,
    "source_axis_mm": CONE.source_axis_mm,
    "source_detector_mm": CONE.source_detector_mm,
}


@dataclass
class RecordingSink:
    messages: list[SinkMessage] = field(default_factory=list)

    def publish(self, message: SinkMessage) -> None:
        self.messages.append(message)

    def close(self) -> None:
        pass

    @property
    def slices(self) -> list[Update]:
        updates = [message for message in self.messages if isinstance(message, Update)]
        return [update for update in updates if (update.slice_name, update.kind) == ("XY", "raw")]


def run_session(
    streams: dict[str, np.ndarray], tomo: dict[str, Any] = TOMO, *, wait: bool = False, **changes: Any
) -> tuple[RecordingSink, SessionStatus]:
    """Emit a run to a session with settings and return what was published and the last status.

    wait: for an update after each projection that gives one. Other keywords: sections of the settings, or the run's
    metadata.
    """
    sink = RecordingSink()
    sections = {name: changes.pop(name) for name in ("tomo_settings",) if name in changes}
    settings = load_settings(
        environment={},
        learn={"enabled": False},
        slices={"updates_per_s": 1000.0},
        tomo=sections.get("tomo_settings", {}),
    )
    with Session(settings, sinks=[sink]) as session:

        def between(number: int) -> None:
            if wait:
                assert session.wait_for(lambda status: status.projections > number, SOON_S)
                if (number + 1) % ANGLES == 0:
                    updates = (number + 1) // ANGLES
                    assert session.wait_for(lambda status: status.update >= updates, SOON_S)

        uid = emit_run(JITCallback(session), streams, tomo=tomo, between=between, **changes)
        assert session.wait_for(ended(uid), SOON_S)
        status = session.status
    return sink, status


def ended(uid: str) -> Callable[[SessionStatus], bool]:
    return lambda status: status.run_uid == uid and status.state == "idle"


def cone_frames(n: int) -> dict[str, np.ndarray]:
    detector = Detector(DetectorPhysics.ideal(photons=8000), CONE.n_v, CONE.n_u, 0)
    lines = [PHANTOM.line_integrals(CONE, 2 * np.pi * k / ANGLES, 0.0) for k in range(n)]
    empty = np.zeros((CONE.n_v, CONE.n_u), dtype=np.float32)
    kinds = {"darks": [None] * 2, "flats": [empty] * 4, "primary": lines}
    return {
        name: np.stack([detector.expose(line, time_s=0.0, beam=line is not None, exposure_s=0.02) for line in exposed])
        for name, exposed in kinds.items()
    }


@pytest.mark.parametrize("planned", [65, None, ANGLES], ids=["planned", "no plan", "ended early"])
def test_part_of_a_turn_of_a_cone_ends_with_true_values(planned: int | None) -> None:
    metadata = {} if planned is None else {"num_points": planned}
    status_of_the_run = {"exit_status": "abort"} if planned == ANGLES else {}
    sink, status = run_session(cone_frames(65), CONE_TOMO, **metadata, **status_of_the_run)
    last = sink.slices[-1]
    assert np.rad2deg(last.angles.arc_rad) == pytest.approx(260, abs=0.1)
    truth = PHANTOM.attenuation(last.grid, 0.0, oversample=2)
    inside = np.hypot(*(last.grid.points()[..., axis] for axis in (0, 1))) < 0.8 * PHANTOM.radius_mm
    assert last.image[inside].mean() == pytest.approx(truth[inside].mean(), rel=0.02)
    assert "projections cover only" not in status.message


def test_an_arc_that_is_too_short_is_shown_at_the_end_with_a_warning() -> None:
    sink, status = run_session(cone_frames(50), CONE_TOMO)
    assert {update.angles.count for update in sink.slices} == {50}
    assert "the projections cover only 200° of 360°" in status.message


def test_whole_turns_give_updates_that_share_no_projection() -> None:
    streams = frames(turns=3)
    sink, _ = run_session(streams, wait=True, tomo_settings={"window": "whole-turns"})
    spans = [(update.angles.first_id, update.angles.last_id) for update in sink.slices]
    assert list(dict.fromkeys(spans)) == [(0, 89), (90, 179), (180, 269)]
    # The last one is made once more at the run's end, with the preview.
    assert len(spans) <= 4


def test_a_window_larger_than_its_memory_is_one_clear_message_and_frames_are_counted() -> None:
    streams = frames(turns=1)
    sink, status = run_session(streams, tomo_settings={"memory_gb": 0.001})
    assert sink.slices == []
    assert "the window of 90 projections of 48×64 pixels needs" in status.message
    assert "tomo.memory_gb" in status.message
    assert status.severity == "MAJOR"
    assert status.frames_lost == sum(len(images) for images in streams.values())


def test_a_run_says_how_far_it_goes_when_it_takes_its_angles_in_order() -> None:
    assert planned_arc_rad_of({}, 360, 250) == pytest.approx(np.deg2rad(250))
    assert planned_arc_rad_of({"scan_mode": "sequential"}, 90, 225) == pytest.approx(5 * np.pi)
    assert planned_arc_rad_of({"scan_mode": "golden"}, 360, 250) is None
    assert planned_arc_rad_of({}, 360, None) is None


def test_whole_windows_are_whole_numbers_of_what_repeats() -> None:
    assert window_length_of(2, 180, 2 * np.pi, "whole-turns", None) == 360
    assert window_length_of(0.5, 180, np.pi, "whole-turns", None) == 90
    assert window_length_of(1.3, 180, 2 * np.pi, "sliding", None) == 234
    with pytest.raises(ValueError, match=r"tomo.turns is 1.5 and tomo.window 'whole-turns': give a whole number of tu"):
        window_length_of(1.5, 180, 2 * np.pi, "whole-turns", None)
    with pytest.raises(ValueError, match="a whole number of half turns"):
        window_length_of(0.7, 180, np.pi, "whole-turns", None)


def test_a_window_shorter_than_what_repeats_is_for_scans_that_fit_in_it() -> None:
    two_thirds = 2 / 3 * 2 * np.pi
    assert window_length_of(2 / 3, 90, 2 * np.pi, "sliding", two_thirds) == 60
    assert window_length_of(0.5, 90, np.pi, "sliding", None) == 45
    # The seam of a turn may lack.
    assert window_length_of(0.97, 100, 2 * np.pi, "sliding", None) == 97
    for planned_rad, told in ((None, "is not known"), (6 * np.pi, "is 3 turns")):
        with pytest.raises(ValueError, match=f"tomo.turns is 0.7, lines repeat after a turn.*{told}.*1 or more"):
            window_length_of(0.7, 90, 2 * np.pi, "sliding", planned_rad)
    with pytest.raises(ValueError, match=r"set tomo.turns to 0.5 or more"):
        window_length_of(0.3, 90, np.pi, "sliding", None)


def test_a_long_run_of_a_cone_in_a_short_window_is_told_why_it_has_no_slices() -> None:
    sink, status = run_session(cone_frames(150), CONE_TOMO, tomo_settings={"turns": 0.7}, num_points=150)
    assert sink.slices == []
    assert "tomo.turns is 0.7" in status.message
    assert "set tomo.turns to 1 or more" in status.message
