"""Say what the camera sees: the phantom at the stage's angle, in the beam that the shutter lets through."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bluesky_jit.tomo.geometry import ConeGeometry, Geometry
from sim_devices.frame import Frame, FrameType
from sim_devices.phantom import Phantom
from sim_devices.physics import Detector
from sim_devices.pvs import PVTable
from sim_devices.shot_noise import ShotNoise
from sim_devices.shutter import Beam
from sim_devices.stage import RotationStage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrerenderedTurn:
    """Hold expected frames rendered beforehand: projections of one turn (n, n_v, n_u), a dark and a flat (n_v, n_u).

    The phantom does not move: for sizes and rates that cannot be rendered live. Every frame gets noise of its own. Its
    angle is the one that it was rendered at, the nearest to the stage's.
    """

    projections: np.ndarray
    dark: np.ndarray
    flat: np.ndarray
    noise: ShotNoise

    def play(self, frame_type: FrameType, angle_deg: float) -> tuple[np.ndarray, float]:
        """Return counts uint16 (n_v, n_u) and their angle."""
        if frame_type is FrameType.PROJECTION:
            n = len(self.projections)
            nearest = round(angle_deg / 360 * n)
            return self.noise.on(self.projections[nearest % n]), nearest * 360 / n
        return self.noise.on(self.flat if frame_type is FrameType.FLAT else self.dark), angle_deg


class Scene:
    """Make frames of what is in the beam, and serve what a client needs to compute the truth behind them."""

    def __init__(
        self,
        table: PVTable,
        *,
        phantom: Phantom,
        geometry: Geometry,
        detector: Detector,
        stage: RotationStage,
        beam: Beam,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._phantom = phantom
        self._geometry = geometry
        self._detector = detector
        self._stage = stage
        self._beam = beam
        self._clock = clock
        self._turn: PrerenderedTurn | None = None
        # The first rendering is slow; its time is better spent before anybody waits for a frame.
        phantom.line_integrals(geometry, 0.0, 0.0)

        phantom_pvs = table.scoped("PHANTOM:")
        self._t0 = phantom_pvs.number("T0", clock(), units="s", precision=6)
        phantom_pvs.choice("Restart", "Done", choices=("Done", "Restart"), on_put=self._put_restart)
        phantom_pvs.text("Experiment_RBV", phantom.name, read_only=True)
        phantom_pvs.integer("Seed_RBV", phantom.seed, read_only=True)
        phantom_pvs.number("RadiusMm_RBV", phantom.radius_mm, units="mm", read_only=True)
        phantom_pvs.number("HalfHeightMm_RBV", phantom.half_height_mm, units="mm", read_only=True)
        self._prerendered = phantom_pvs.integer("Prerendered_RBV", 0, read_only=True)

        geometry_pvs = table.scoped("GEOMETRY:")
        geometry_pvs.text("Kind_RBV", geometry.kind, read_only=True)
        lengths = {"PixelMm": geometry.pixel_mm, "AxisOffsetMm": geometry.axis_offset_mm}
        if isinstance(geometry, ConeGeometry):
            lengths |= {"SourceAxisMm": geometry.source_axis_mm, "SourceDetectorMm": geometry.source_detector_mm}
        for name, length in lengths.items():
            geometry_pvs.number(name + "_RBV", length, units="mm", read_only=True)
        geometry_pvs.integer("Rows_RBV", geometry.n_v, read_only=True)
        geometry_pvs.integer("Columns_RBV", geometry.n_u, read_only=True)

    @property
    def shape(self) -> tuple[int, int]:
        return self._geometry.n_v, self._geometry.n_u

    def expose(self, *, time_s: float, exposure_s: float, unique_id: int) -> Frame:
        """Return the frame of an exposure around a time, with the exact angle then."""
        angle_deg = self._stage.angle_deg(time_s)
        phantom_time_s = time_s - self._t0.value
        frame_type = self._frame_type()
        if self._turn is not None:
            counts, angle_deg = self._turn.play(frame_type, angle_deg)
            phantom_time_s = 0.0
        else:
            counts = self._render(frame_type, angle_deg, phantom_time_s, exposure_s)
        return Frame(
            counts=counts,
            unique_id=unique_id,
            time_s=time_s,
            angle_deg=angle_deg,
            frame_type=frame_type,
            phantom_time_s=phantom_time_s,
        )

    async def prerender(self, projections: int, *, exposure_s: float) -> None:
        """Render a turn beforehand; from then on frames are played from it."""
        turns = np.arange(projections) / projections
        turn = PrerenderedTurn(
            projections=np.stack(
                [self._render(FrameType.PROJECTION, 360 * t, 0.0, exposure_s, noise=False) for t in turns]
            ),
            dark=self._render(FrameType.DARK, 0.0, 0.0, exposure_s, noise=False),
            flat=self._render(FrameType.FLAT, 0.0, 0.0, exposure_s, noise=False),
            noise=ShotNoise(self._detector.physics, exposure_s=exposure_s),
        )
        # It is compiled now, and not while a frame is waited for.
        turn.play(FrameType.DARK, 0.0)
        self._turn = turn
        await self._prerendered.write(projections, verify_value=False)
        logger.info("rendered %d projections beforehand", projections)

    def _frame_type(self) -> FrameType:
        if not self._beam.on:
            return FrameType.DARK
        return FrameType.PROJECTION if self._beam.sample_in else FrameType.FLAT

    def _render(
        self, frame_type: FrameType, angle_deg: float, phantom_time_s: float, exposure_s: float, *, noise: bool = True
    ) -> np.ndarray:
        # No line integrals make a dark, zeros a flat.
        line_integrals = None if frame_type is FrameType.DARK else np.zeros(self.shape, dtype=np.float32)
        if frame_type is FrameType.PROJECTION:
            # Before its time 0 the phantom is as it is at 0.
            moment_s = max(phantom_time_s, 0.0)
            line_integrals = self._phantom.line_integrals(self._geometry, np.deg2rad(angle_deg), moment_s)
        beam = frame_type is not FrameType.DARK
        return self._detector.expose(
            line_integrals, time_s=phantom_time_s, beam=beam, exposure_s=exposure_s, noise=noise
        )

    async def _put_restart(self, requested: str) -> str:
        if requested == "Restart":
            await self._t0.write(self._clock(), verify_value=False)
        return "Done"
