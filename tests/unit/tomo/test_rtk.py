"""An independent cone-beam reconstruction (RTK) of the same projections gives the same numbers."""

import warnings

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


@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
@pytest.mark.parametrize("turns", [1, 2])
def test_a_volume_agrees_with_rtk(turns):
    angles = np.arange(180) * 2 * np.pi * turns / 180
    result = FilteredBackprojection(GEOMETRY, n_projections=180)
    for block in (darks(GEOMETRY), flats(GEOMETRY), projections(GEOMETRY, BALLS, angles)):
        result.push(block)
    # RTK turns about y, with z towards the source: its (z, y, x) are our (-y, z, x).
    half = (SIZE - 1) / 2 * VOXEL
    grid = Grid(
        origin=(-half, half, -half),
        z_step=(0, -VOXEL, 0),
        y_step=(0, 0, VOXEL),
        x_step=(VOXEL, 0, 0),
        shape=(SIZE, SIZE, SIZE),
    )
    made = result.slices((grid,))
    assert made is not None
    ours, theirs = made.images[0], reconstructed_by_rtk(angles)
    assert float((ours * theirs).sum() / (theirs * theirs).sum()) == pytest.approx(1, abs=1e-3)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 5e-4 * 0.02


def reconstructed_by_rtk(angles):
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)  # with more, each work unit copies every projection
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    for angle in angles:
        geometry.AddProjection(GEOMETRY.source_axis_mm, GEOMETRY.source_detector_mm, -np.degrees(angle))
    stack = itk.image_from_array(line_integrals(GEOMETRY, BALLS, angles).astype(np.float32))
    stack.SetOrigin([-GEOMETRY.u_centre * GEOMETRY.pixel_mm, -GEOMETRY.v_centre * GEOMETRY.pixel_mm, 0])
    stack.SetSpacing([GEOMETRY.pixel_mm, GEOMETRY.pixel_mm, 1])
    image_type = itk.Image[itk.F, 3]
    empty = rtk.ConstantImageSource[image_type].New()
    empty.SetSize([SIZE] * 3)
    empty.SetSpacing([VOXEL] * 3)
    empty.SetOrigin([-(SIZE - 1) / 2 * VOXEL] * 3)
    feldkamp = rtk.FDKConeBeamReconstructionFilter[image_type].New()
    feldkamp.SetInput(0, empty.GetOutput())
    feldkamp.SetInput(1, stack)
    feldkamp.SetGeometry(geometry)
    feldkamp.Update()
    return itk.array_from_image(feldkamp.GetOutput())
