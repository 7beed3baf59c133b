"""An independent cone-beam reconstruction (RTK) of the same projections gives the same numbers."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from analytic_balls import Ball, darks, flats, line_integrals, projections

from bluesky_jit.tomo.geometry import ConeGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types name no module
    itk = pytest.importorskip("itk")
    rtk = itk.RTK

GEOMETRY = ConeGeometry(n_u=128, n_v=80, pixel_mm=1.0, source_axis_mm=200, source_detector_mm=500)
BALLS = [Ball((3, -2, 1), 12, 0.02), Ball((-6, 5, 0), 3, 0.015), Ball((8, 3, -3), 2.5, -0.01)]
SIZE, VOXEL = 41, 0.5
HALF = (SIZE - 1) / 2 * VOXEL
# RTK turns about y, with z towards the source: its (z, y, x) are our (-y, z, x).
GRID = Grid(
    origin=(-HALF, HALF, -HALF),
    z_step=(0, -VOXEL, 0),
    y_step=(0, 0, VOXEL),
    x_step=(VOXEL, 0, 0),
    shape=(SIZE, SIZE, SIZE),
)

pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")


def assert_agree(ours, theirs, *, rms):
    assert float((ours * theirs).sum() / (theirs * theirs).sum()) == pytest.approx(1, abs=1e-3)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < rms * 0.02


@pytest.mark.parametrize("turns", [1, 2])
def test_a_volume_agrees_with_rtk(turns):
    angles = np.arange(180) * 2 * np.pi * turns / 180
    assert_agree(reconstructed(GEOMETRY, angles), reconstructed_by_rtk(GEOMETRY, angles), rms=5e-4)


@pytest.mark.parametrize("degrees", [220, 270])
def test_a_short_scan_agrees_with_rtks_parker_weights(degrees):
    angles = 0.3 + np.deg2rad(np.arange(degrees))
    theirs = reconstructed_by_rtk(GEOMETRY, angles, weights="ParkerShortScanImageFilter")
    assert_agree(reconstructed(GEOMETRY, angles), theirs, rms=5e-4)


@pytest.mark.parametrize("side", [1, -1])
def test_an_extended_field_agrees_with_rtks_displaced_detector(side):
    offset = replace(GEOMETRY, n_u=96, detector_u_mm=side * 28.0, extended_field=True)
    angles = np.arange(240) * 2 * np.pi / 240
    theirs = reconstructed_by_rtk(offset, angles, weights="DisplacedDetectorImageFilter")
    assert_agree(reconstructed(offset, angles), theirs, rms=2e-4)


def reconstructed(geometry, angles):
    result = FilteredBackprojection(geometry, n_projections=len(angles))
    for block in (darks(geometry), flats(geometry), projections(geometry, BALLS, angles)):
        result.push(block)
    result.settle(drained=True)
    assert result.complete
    made = result.slices((GRID,))
    assert made is not None
    return made.images[0]


def reconstructed_by_rtk(geometry, angles, *, weights=None):
    """Return RTK's volume; weights: its filter that makes every line count once."""
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)  # with more, each work unit copies every projection
    circle = rtk.ThreeDCircularProjectionGeometry.New()
    for angle in angles:
        circle.AddProjection(geometry.source_axis_mm, geometry.source_detector_mm, -np.degrees(angle))
    stack = itk.image_from_array(line_integrals(geometry, BALLS, angles).astype(np.float32))
    stack.SetOrigin([-geometry.u_centre * geometry.pixel_mm, -geometry.v_centre * geometry.pixel_mm, 0])
    stack.SetSpacing([geometry.pixel_mm, geometry.pixel_mm, 1])
    image_type = itk.Image[itk.F, 3]
    if weights:
        weigh = getattr(rtk, weights)[image_type].New()
        weigh.SetInput(0, stack)
        weigh.SetGeometry(circle)
        weigh.Update()
        stack = weigh.GetOutput()
    empty = rtk.ConstantImageSource[image_type].New()
    empty.SetSize([SIZE] * 3)
    empty.SetSpacing([VOXEL] * 3)
    empty.SetOrigin([-HALF] * 3)
    feldkamp = rtk.FDKConeBeamReconstructionFilter[image_type].New()
    feldkamp.SetInput(0, empty.GetOutput())
    feldkamp.SetInput(1, stack)
    feldkamp.SetGeometry(circle)
    feldkamp.Update()
    return itk.array_from_image(feldkamp.GetOutput())
