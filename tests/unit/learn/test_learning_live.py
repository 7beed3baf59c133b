"""The rooms together: counts of the simulated detector, backprojected, learnt from and denoised."""

from __future__ import annotations

import numpy as np
import pytest
from seen_tablet import block

from bluesky_jit.learn.buffer import PairBuffer
from bluesky_jit.learn.denoiser import Denoiser
from bluesky_jit.learn.noise2inverse import PatchSampler, make_pairs
from bluesky_jit.learn.quality.readiness import Readiness
from bluesky_jit.learn.quality.scores import dice, psnr, ssim
from bluesky_jit.learn.region import field_cylinder
from bluesky_jit.learn.segmenter import Segmenter, SliceSegmenter
from bluesky_jit.learn.trainer import Trainer
from bluesky_jit.messages import FrameKind
from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection
from sim_devices.phantom import experiment
from sim_devices.physics import Detector, DetectorPhysics

GEOMETRY = ConeGeometry(n_u=96, n_v=80, pixel_mm=1.6, source_axis_mm=441.4, source_detector_mm=1069.0)
REGION = field_cylinder(GEOMETRY)
SHOWN = (
    Grid.slice_xy(voxel_mm=GEOMETRY.voxel_mm, shape=(96, 96)),
    Grid.slice_xz(voxel_mm=GEOMETRY.voxel_mm, shape=(72, 96)),
    Grid.slice_yz(voxel_mm=GEOMETRY.voxel_mm, shape=(72, 96)),
)
TURN_S = 1.8
ANGLES = 150


@pytest.fixture(scope="module")
def phantom():
    return experiment("A", seed=5, radius_mm=REGION.radius_mm, half_height_mm=REGION.half_height_mm)


@pytest.fixture(scope="module")
def reconstruction(phantom) -> FilteredBackprojection:
    """One turn of the moving phantom."""
    detector = Detector(DetectorPhysics(photons=400), GEOMETRY.n_v, GEOMETRY.n_u, seed=5)
    times_s = TURN_S * np.arange(ANGLES) / ANGLES
    angles_rad = 2 * np.pi * times_s / TURN_S
    nowhere, some = np.full(20, np.nan), np.arange(20.0)
    made = FilteredBackprojection(GEOMETRY, n_projections=ANGLES)
    empty = np.zeros((GEOMETRY.n_v, GEOMETRY.n_u))
    blanks: tuple[tuple[FrameKind, bool], ...] = (("dark", False), ("flat", True))
    for kind, beam in blanks:
        counts = [detector.expose(empty, time_s=0.0, beam=beam, exposure_s=0.02) for _ in range(20)]
        made.push(block(kind, np.stack(counts), nowhere, some))
    counts = [
        detector.expose(phantom.line_integrals(GEOMETRY, angle_rad, time_s), time_s=time_s, beam=True, exposure_s=0.02)
        for angle_rad, time_s in zip(angles_rad, times_s, strict=True)
    ]
    made.push(block("projection", np.stack(counts), angles_rad, times_s))
    return made


def test_a_moving_sample_is_denoised_better_than_the_raw_slice_everywhere_it_is_looked_at(phantom, reconstruction):
    sampler = PatchSampler(REGION, voxel_mm=GEOMETRY.voxel_mm, seed=0, shown=SHOWN)
    buffer, trainer, readiness = PairBuffer(640, seed=0), Trainer("unet-fast", seed=0), Readiness()
    denoiser = Denoiser("unet-fast")
    for step in range(600):
        if step % 5 == 0:
            splits = reconstruction.pairs(sampler.train())
            assert splits is not None
            buffer.push(make_pairs(splits))
        trainer.train_step(buffer.sample(32))
        if step % 40 == 39:
            splits = reconstruction.pairs(sampler.held_out())
            assert splits is not None
            readiness.update(trainer.accuracy(make_pairs(splits)))
    denoiser.load(trainer.snapshot())

    assert readiness.ready, readiness.reason
    raw = reconstruction.slices(SHOWN)
    assert raw is not None
    for grid, image in zip(SHOWN, raw.images, strict=True):
        truth = phantom.attenuation(grid, TURN_S / 2, oversample=2)[0]
        mask = REGION.contains(grid.points()[0])
        before, after = image[0], denoiser.apply(image[None])
        assert psnr(after, truth, mask=mask) > psnr(before, truth, mask=mask) + 1.0
        assert ssim(after, truth, mask=mask) > ssim(before, truth, mask=mask) + 0.1


def test_two_classes_are_learnt_from_labels_that_nobody_drew_and_told_better_than_by_a_threshold(
    phantom, reconstruction
):
    sampler = PatchSampler(REGION, voxel_mm=GEOMETRY.voxel_mm, seed=0, shown=SHOWN)
    buffer, model = PairBuffer(640, seed=0), Segmenter(seed=0)
    for step in range(300):
        if step % 10 == 0:
            splits = reconstruction.pairs(sampler.train())
            assert splits is not None
            buffer.push(make_pairs(splits))
        model.train_step(buffer.sample(32))
    splits = reconstruction.pairs(sampler.held_out())
    assert splits is not None
    assert model.accuracy(make_pairs(splits)).value < 0.6

    segmenter = SliceSegmenter()
    segmenter.load(model.snapshot())
    threshold = model.snapshot().mean
    raw = reconstruction.slices(SHOWN)
    assert raw is not None
    for grid, image in zip(SHOWN, raw.images, strict=True):
        truth = phantom.attenuation(grid, TURN_S / 2, oversample=2)[0] > threshold
        mask = REGION.contains(grid.points()[0])
        told = dice(segmenter.apply(image[None]) > 0.5, truth, mask=mask)
        assert told > 0.96
        assert told > dice(image[0] > threshold, truth, mask=mask) + 0.02
