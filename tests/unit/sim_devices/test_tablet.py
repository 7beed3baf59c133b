"""The tablet: it shrinks from all faces, stays on its floor, and holds its pores."""

import numpy as np
import pytest

from sim_devices.ground import make_ground
from sim_devices.materials import Material
from sim_devices.tablet import make_tablet


@pytest.fixture
def tablet():
    rng = np.random.default_rng(2)
    ground = make_ground(rng=rng, within_mm=25.0, floor_mm=-20.0, unit_mm=30.0)
    return make_tablet(rng=rng, unit_mm=30.0, within_mm=25.0, ground=ground, gap_mm=0.1, dissolve_s=200.0)


@pytest.mark.parametrize("time_s", [0.0, 60.0, 150.0, 199.0])
def test_film_encloses_tablet_and_tablet_its_pores(tablet, time_s):
    bodies = tablet.bodies(time_s)
    film, solid = bodies.radii[:2]
    assert film > solid
    assert bodies.highs[0] > bodies.highs[1]
    pores = bodies.kept((bodies.materials == Material.GAS) & (bodies.displaced == Material.TABLET))
    relative = pores.centres - bodies.centres[1]
    height = relative @ np.array(tablet.axis)
    across = np.linalg.norm(relative - height[:, None] * tablet.axis, axis=1)
    assert np.all(across + pores.radii < solid)
    assert np.all(np.abs(height) + pores.radii < bodies.highs[1])


def test_pores_are_many_at_first_and_none_overlaps(tablet):
    pores = tablet.bodies(0.0).kept(tablet.bodies(0.0).displaced == Material.TABLET)
    assert len(pores) > 10
    gaps = np.linalg.norm(pores.centres[:, None] - pores.centres, axis=-1) - pores.radii[:, None] - pores.radii
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() > 0


@pytest.mark.parametrize("time_s", [0.0, 120.0])
def test_it_stands_on_its_floor_and_reaches_its_top(tablet, time_s):
    film = tablet.bodies(time_s).kept(np.arange(len(tablet.bodies(time_s))) == 0)
    axis = film.axes[0]
    down = -np.array([0, 0, 1.0]) + axis * axis[2]
    rim = film.centres[0] + film.lows[0] * axis + film.radii[0] * down / np.linalg.norm(down)
    assert rim[2] == pytest.approx(tablet.floor_mm)
    assert 2 * film.centres[0, 2] - rim[2] == pytest.approx(tablet.top_mm(time_s))


def test_every_face_loses_as_much_until_nothing_is_left(tablet):
    (radius, half, _), (later_radius, later_half, _) = tablet.sizes_mm(0.0), tablet.sizes_mm(50.0)
    assert radius - later_radius == pytest.approx(half - later_half)
    assert later_half == pytest.approx(0.75 * half)
    assert len(tablet.bodies(200.0)) == 0
    assert len(tablet.bodies(-10.0)) == len(tablet.bodies(0.0))
