"""Say where patches are to lie: as somebody has asked, or around the sample, which is looked for again and again."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from bluesky_jit.learn.region import Box, Cylinder, Region, corners_of, field_cylinder
from bluesky_jit.learn.sample import find_sample
from bluesky_jit.settings_sections import REGION_NUMBERS, LearnSettings
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.overview import POINTS
from bluesky_jit.tomo.reconstructor import Reconstructor

logger = logging.getLogger(__name__)

WINDOWS_BETWEEN = 8
"""Windows of new projections between two looks for the sample. With the paper's scanner a look takes 0.15 s of one core
and a window 1.8 s to come, so that this is one part in a hundred."""
MOVED_POINTS = 2
"""Points of the overview by which a side must have moved to be followed; noise moves it by one."""


class RegionFinder:
    """Keep the region that patches come from. One thread uses it.

    region: where they are to lie now; all that every projection sees, until the sample has been looked for.
    """

    def __init__(self, settings: LearnSettings, geometry: Geometry, *, patch_mm: float) -> None:
        """Begin as the settings say; raise ValueError where they ask for what is not seen from all sides.

        patch_mm: how wide a patch is; a sample that is smaller is given that much room.
        """
        self._patch_mm = patch_mm
        self._next_look: int | None = None
        self._follows = settings.region == "sample"
        self.region: Region = (
            field_cylinder(geometry)
            if settings.region == "sample"
            else explicit_region(settings.region, settings.region_mm, geometry)
        )

    def look_again(self, after: int | None = None) -> None:
        """Look for the sample at the next update, or when projection `after` has come: it may have changed abruptly."""
        self._next_look = after

    def update(self, reconstructor: Reconstructor) -> bool:
        """Look for the sample when it is time; return whether the region has changed."""
        newest = reconstructor.newest
        if not self._follows or newest is None or (self._next_look is not None and newest < self._next_look):
            return False
        self._next_look = newest + WINDOWS_BETWEEN * reconstructor.n_projections
        field = field_cylinder(reconstructor.geometry)
        sample = find_sample(reconstructor)
        found = field if sample is None else with_room(sample, self._patch_mm, field)
        moved_mm = float(abs(corners_of(found) - corners_of(self.region)).max())
        if isinstance(self.region, Cylinder) and moved_mm <= MOVED_POINTS * 2 * field.radius_mm / POINTS:
            return False
        self.region = found
        (x, y, z), (radius, _, half_height) = found.centre_mm, found.half_extents_mm
        logger.info(
            "patches come from %s: radius %.3g mm, height %.3g mm, around x %.3g, y %.3g, z %.3g mm",
            "the whole field, for no sample stands out of it" if sample is None else "around the sample",
            *(radius, 2 * half_height, x, y, z),
        )
        return True


def explicit_region(kind: str, numbers_mm: Sequence[float], geometry: Geometry) -> Region:
    """Return the region that is described by a kind and numbers, as in learn.region and learn.region_mm.

    Raises ValueError where not every projection sees all of it.
    """
    field = field_cylinder(geometry)
    if kind == "field":
        return field
    if kind not in REGION_NUMBERS:
        raise ValueError(f"learn.region is {kind!r}: give one of sample, field, {', '.join(REGION_NUMBERS)}")
    names = REGION_NUMBERS[kind]
    if len(numbers_mm) != len(names):
        raise ValueError(f"learn.region_mm is {tuple(numbers_mm)}: a {kind} takes {len(names)}: {', '.join(names)}")
    if kind == "box":
        x, y, z, x_high, y_high, z_high = numbers_mm
        region: Region = Box(low_mm=(x, y, z), high_mm=(x_high, y_high, z_high))
        reach_mm = float(np.hypot(*corners_of(region).T[:2]).max())
    else:
        reach_mm, low, high = numbers_mm
        if not low < high:
            raise ValueError(f"learn.region_mm is {tuple(numbers_mm)}: its low end is not below its high end")
        region = Cylinder(radius_mm=reach_mm, half_height_mm=(high - low) / 2, centre_mm=(0.0, 0.0, (low + high) / 2))
    up_mm = float(abs(corners_of(region)[:, 2]).max())
    if reach_mm > field.radius_mm or up_mm > field.half_height_mm:
        raise ValueError(
            f"learn.region_mm is {tuple(numbers_mm)}: this {kind} reaches {reach_mm:.4g} mm from the axis and "
            f"{up_mm:.4g} mm up or down, and all projections see {field.radius_mm:.4g} and {field.half_height_mm:.4g} "
            "mm: give a smaller one"
        )
    return region


def with_room(sample: Cylinder, least_mm: float, field: Cylinder) -> Cylinder:
    """Return a cylinder around the sample that patches have room in, as far as the field has: least_mm each way."""
    radius = min(max(sample.radius_mm, least_mm), field.radius_mm)
    half_height = min(max(sample.half_height_mm, least_mm), field.half_height_mm)
    x, y, z = sample.centre_mm
    aside, room = float(np.hypot(x, y)), field.radius_mm - radius
    part = min(1.0, room / aside) if aside else 1.0
    up = float(np.clip(z, half_height - field.half_height_mm, field.half_height_mm - half_height))
    return Cylinder(radius_mm=radius, half_height_mm=half_height, centre_mm=(part * x, part * y, up))
