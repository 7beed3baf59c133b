"""Noise of frames that were rendered beforehand: as strong as the detector's, and never the same twice."""

import numpy as np
import pytest

from sim_devices.physics import Detector, DetectorPhysics
from sim_devices.shot_noise import ShotNoise

PHYSICS = DetectorPhysics.ideal(photons=1000.0, read_noise=8.0, offset=200.0)
EXPOSURE_S = 0.02
SHAPE = (160, 200)


def exposed(level: float, *, noise: bool) -> np.ndarray:
    detector = Detector(PHYSICS, *SHAPE)
    integrals = np.full(SHAPE, -np.log(level))
    return detector.expose(integrals, time_s=0.0, beam=True, exposure_s=EXPOSURE_S, noise=noise)


@pytest.mark.parametrize("level", [1.0, 0.1])
def test_it_has_the_mean_and_the_spread_of_exposed_frames(level: float) -> None:
    played = ShotNoise(PHYSICS, exposure_s=EXPOSURE_S).on(exposed(level, noise=False))
    real = exposed(level, noise=True)
    assert played.dtype == np.uint16
    error = real.std() / np.sqrt(real.size)
    assert abs(played.mean() - real.mean()) < 5 * error
    assert played.std() == pytest.approx(real.std(), rel=0.03)


def test_without_noise_a_frame_is_what_the_detector_reads_on_average() -> None:
    expected = PHYSICS.offset + 0.5 * PHYSICS.photons * PHYSICS.counts_per_photon
    np.testing.assert_allclose(exposed(0.5, noise=False), expected, atol=1)


def test_no_two_frames_have_noise_in_common() -> None:
    noise, mean = ShotNoise(PHYSICS, exposure_s=EXPOSURE_S), exposed(0.5, noise=False)
    frames = [noise.on(mean).astype(float) - mean for _ in range(4)]
    for i, first in enumerate(frames):
        for second in frames[:i]:
            assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / np.sqrt(mean.size)


def test_counts_stay_within_what_the_detector_reads() -> None:
    noise = ShotNoise(PHYSICS, exposure_s=EXPOSURE_S)
    assert noise.on(np.full(SHAPE, 65535, np.uint16)).max() == 65535
    assert noise.on(np.zeros(SHAPE, np.uint16)).min() == 0
