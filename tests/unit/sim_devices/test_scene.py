"""What the camera sees follows the stage, the shutter, the sample and the phantom's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from bluesky_jit.tomo.geometry import ConeGeometry
from sim_devices.frame import FrameType
from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics
from sim_devices.pvs import PVTable
from sim_devices.scene import Scene
from sim_devices.shutter import Beam
from sim_devices.stage import RotationStage

GEOMETRY = ConeGeometry(n_u=20, n_v=16, pixel_mm=7.68, source_axis_mm=441.4, source_detector_mm=1069.0)
GEOMETRY_SHAPE = (GEOMETRY.n_v, GEOMETRY.n_u)
PHYSICS = DetectorPhysics.ideal(photons=4000.0)
START_S = 1000.0


class Bench:
    """A scene with its stage and beam, at times that the test gives."""

    def __init__(self) -> None:
        self.now_s = START_S
        table = PVTable("T:")
        self.pvs = table.database
        self.phantom = experiment("A", seed=1, radius_mm=GEOMETRY.radius_mm, half_height_mm=GEOMETRY.half_height_mm)
        self.stage = RotationStage(table.scoped("ROT"), clock=self.clock)
        self.scene = Scene(
            table,
            phantom=self.phantom,
            geometry=GEOMETRY,
            detector=Detector(PHYSICS, *GEOMETRY_SHAPE, seed=1),
            stage=self.stage,
            beam=Beam(table),
            clock=self.clock,
        )

    def clock(self) -> float:
        return self.now_s

    async def put(self, name: str, value: Any) -> None:
        await self.pvs["T:" + name].write(value)

    def transmission(self, time_s: float) -> np.ndarray:
        frame = self.scene.expose(time_s=time_s, exposure_s=0.02, unique_id=1)
        return frame.counts / (PHYSICS.photons * PHYSICS.counts_per_photon)


Steps = Callable[[Bench], Coroutine[Any, Any, None]]


def run(steps: Steps) -> None:
    async def with_bench() -> None:
        await steps(Bench())

    asyncio.run(with_bench())


@pytest.mark.parametrize(
    ("shutter", "sample", "frame_type"),
    [
        ("Closed", "In", FrameType.DARK),
        ("Closed", "Out", FrameType.DARK),
        ("Open", "Out", FrameType.FLAT),
        ("Open", "In", FrameType.PROJECTION),
    ],
)
def test_shutter_and_sample_decide_what_a_frame_is(shutter: str, sample: str, frame_type: FrameType):
    async def steps(bench: Bench) -> None:
        await bench.put("SHUTTER", shutter)
        await bench.put("SAMPLE", sample)
        assert bench.scene.expose(time_s=START_S, exposure_s=0.02, unique_id=1).frame_type is frame_type

    run(steps)


def test_the_frame_shows_the_phantom_at_the_angle_and_time_of_the_exposure():
    async def steps(bench: Bench) -> None:
        await bench.put("SHUTTER", "Open")
        bench.stage.motion.move(90.0, speed=30.0, acceleration=150.0, now_s=START_S)
        middle_s = START_S + 2.0
        angle_deg = bench.stage.angle_deg(middle_s)
        frame = bench.scene.expose(time_s=middle_s, exposure_s=0.02, unique_id=1)
        assert frame.angle_deg == angle_deg
        assert frame.phantom_time_s == 2.0
        expected = np.exp(-bench.phantom.line_integrals(GEOMETRY, np.deg2rad(angle_deg), 2.0))
        # Photon noise of 4000 photons is at most 1.6 % of the open beam.
        np.testing.assert_allclose(bench.transmission(middle_s), expected, atol=0.08)

    run(steps)


def test_a_restart_sets_the_phantoms_clock_to_zero():
    async def steps(bench: Bench) -> None:
        bench.now_s = START_S + 50.0
        await bench.put("PHANTOM:Restart", "Restart")
        assert bench.pvs["T:PHANTOM:T0"].value == START_S + 50.0
        assert bench.scene.expose(time_s=START_S + 51.0, exposure_s=0.02, unique_id=1).phantom_time_s == 1.0

    run(steps)


def test_frames_rendered_beforehand_say_the_angle_they_were_rendered_at():
    async def steps(bench: Bench) -> None:
        await bench.put("SHUTTER", "Open")
        await bench.scene.prerender(8, exposure_s=0.02)
        bench.stage.motion.move(400.0, speed=100.0, acceleration=1e6, now_s=START_S)
        frame = bench.scene.expose(time_s=START_S + 3.7, exposure_s=0.02, unique_id=1)
        again = bench.scene.expose(time_s=START_S + 0.1, exposure_s=0.02, unique_id=2)
        assert (frame.angle_deg, again.angle_deg) == (360.0, 0.0)
        # The same picture, each time with noise of its own.
        difference = frame.counts.astype(float) - again.counts
        assert np.abs(difference).max() > 0
        assert abs(np.corrcoef(difference.ravel(), frame.counts.ravel())[0, 1]) < 0.2

    run(steps)
