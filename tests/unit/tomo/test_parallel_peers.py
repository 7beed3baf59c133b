"""Two independent reconstructions of a parallel beam agree with ours, to what other discretisation costs."""

import numpy as np
import pytest
from analytic_balls import Ball, darks, flats, line_integrals, projections

from bluesky_jit.tomo.geometry import ParallelGeometry
from bluesky_jit.tomo.grid import Grid
from bluesky_jit.tomo.live import FilteredBackprojection

# One row more to either side of the one that is compared; an odd number of columns, so that centres coincide.
GEOMETRY = ParallelGeometry(n_u=129, n_v=3, pixel_mm=0.4)
MU = 0.02
BALLS = [
    Ball((2, -3, 0), 15, MU, soft=True),
    Ball((6, 4, 0), 5, -MU / 2, soft=True),
    Ball((-7, -4, 0), 6, MU, soft=True),
    Ball((1, 9, 0), 3, MU),
]
ANGLES = 0.2 + np.arange(240) * np.pi / 240
GRID = Grid.slice_xy(voxel_mm=0.4, shape=(129, 129))


@pytest.fixture(scope="module")
def ours():
    result = FilteredBackprojection(GEOMETRY, n_projections=len(ANGLES))
    for block in (darks(GEOMETRY), flats(GEOMETRY), projections(GEOMETRY, BALLS, ANGLES)):
        result.push(block)
    made = result.slices((GRID,))
    assert made is not None
    return made.images[0][0]


def assert_agree(ours, theirs):
    inside = np.linalg.norm(GRID.points()[0, ..., :2], axis=-1) < 22
    ours, theirs = ours[inside], theirs[inside]
    assert float((ours * theirs).sum() / (theirs * theirs).sum()) == pytest.approx(1, abs=3e-3)
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.02 * MU


def sinogram():
    """Return the line integrals of the middle row, float64 (n_angles, n_u)."""
    return line_integrals(GEOMETRY, BALLS, ANGLES)[:, 1]


def test_a_slice_agrees_with_astra_on_the_cpu(ours):
    astra = pytest.importorskip("astra")
    volume = astra.create_vol_geom(129, 129)
    views = astra.create_proj_geom("parallel", 1.0, 129, ANGLES)
    projector = astra.create_projector("linear", views, volume)
    data = astra.data2d.create("-sino", views, sinogram().astype(np.float32))
    image = astra.data2d.create("-vol", volume)
    algorithm = astra.algorithm.create(
        {
            **astra.astra_dict("FBP"),
            "ProjectorId": projector,
            "ProjectionDataId": data,
            "ReconstructionDataId": image,
            "option": {"FilterType": "ram-lak"},
        }
    )
    astra.algorithm.run(algorithm)
    # In pixels: lengths are in units of 0.4 mm.
    assert_agree(ours, astra.data2d.get(image) / GEOMETRY.pixel_mm)
    astra.algorithm.delete(algorithm)
    astra.data2d.delete([data, image])
    astra.projector.delete(projector)


def test_a_slice_agrees_with_scikit_image(ours):
    transform = pytest.importorskip("skimage.transform")
    theirs = transform.iradon(sinogram().T, theta=np.rad2deg(ANGLES), filter_name="ramp", circle=True)
    assert_agree(ours, theirs / GEOMETRY.pixel_mm)
