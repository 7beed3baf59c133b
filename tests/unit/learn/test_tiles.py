"""Cutting images into tiles."""

from __future__ import annotations

import numpy as np
import pytest

from bluesky_jit.learn.tiles import cuts


@pytest.mark.parametrize("shape", [(100, 100), (257, 131), (64, 1000), (1000, 64)])
@pytest.mark.parametrize("points", [100, 5_000, 20_000])
def test_each_point_is_given_once_and_its_surroundings_with_it(shape, points):
    ny, nx = shape
    given = np.zeros(shape, dtype=int)
    for (rows, columns), (above, left) in cuts(ny, nx, reach=15, stride=4, points=points):
        given[rows, columns] += 1
        for inner, outer, size in ((rows, above, ny), (columns, left, nx)):
            assert outer.start == 0 or (outer.start <= inner.start - 15 and outer.start % 4 == 0)
            assert outer.stop == size or outer.stop >= inner.stop + 15
    assert np.all(given == 1)


def test_a_tile_has_about_as_many_points_as_asked_for():
    sizes = [
        (above.stop - above.start) * (left.stop - left.start)
        for _, (above, left) in cuts(2000, 2000, reach=19, stride=4, points=300_000)
    ]
    assert max(sizes) <= 300_000
    assert len(sizes) <= 20


def test_a_tile_gives_at_least_as_much_as_its_margins_take():
    heights = [rows.stop - rows.start for (rows, _), _ in cuts(160, 160, reach=15, stride=4, points=1)]
    assert set(heights) == {16}
