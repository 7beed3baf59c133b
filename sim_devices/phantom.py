"""The paper's two experiments: a tablet dissolves in a glass jar of fluid, over granular ground, and bubbles rise.

Every body lies wholly inside one other material, so contrasts add: line integrals are exact, nothing is counted twice.
See docs/explanations/phantom.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bluesky_jit.tomo.geometry import ConeGeometry, Geometry
from bluesky_jit.tomo.grid import Grid
from sim_devices import bodies as shapes
from sim_devices.bodies import Bodies
from sim_devices.bubbles import Bubbles, BubbleStyle, Lanes, make_lanes
from sim_devices.ground import make_ground
from sim_devices.materials import Energy, Material, attenuations
from sim_devices.tablet import Tablet, make_tablet

ExperimentName = Literal["A", "B"]

# Lengths are in units of the jar's size (the radius of the field of view, when that is not very flat).
STYLES: dict[ExperimentName, BubbleStyle] = {
    "A": BubbleStyle(
        lane_radii=(0.3, 0.26, 0.22, 0.2, *[0.17] * 4, *[0.12] * 8, *[0.08] * 14),
        fill=(0.6, 0.92),
        speed=0.025,
        spacing=(2.7, 4.0),
        presence=0.85,
        reach=0.0,
    ),
    "B": BubbleStyle(
        lane_radii=(*[0.085] * 30, *[0.065] * 60, *[0.05] * 80),
        fill=(0.5, 0.92),
        speed=0.004,
        spacing=(2.7, 4.0),
        presence=0.85,
        reach=1.2,
    ),
}

CENTRE_LINE_INTEGRAL = 1.5
"""∫µ dl of a ray across the jar through its axis, between ground and surface, where it meets no bubble."""

_OUTER_RADIUS = 0.92
_HALF_HEIGHT = 0.84
_WALL = 0.06
_BASE = 0.03
_SURFACE = 0.86


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phantom:
    """Hold a sample that moves as a function of time: nothing is stored between calls, and it pickles.

    scale: what every tabulated attenuation is multiplied by, so that a jar of any size takes as much of the beam.
    """

    name: ExperimentName
    seed: int
    radius_mm: float
    half_height_mm: float
    scale: float
    still: Bodies
    tablet: Tablet
    lanes: Lanes

    def bodies(self, time_s: float) -> Bodies:
        """Return every body at a time: jar, fluid and ground, then the tablet, then the bubbles."""
        bubbles = self.bubbles(time_s)
        gas = shapes.spheres(bubbles.centres_mm, bubbles.radii_mm, material=Material.GAS, displaced=Material.FLUID)
        return shapes.joined([self.still, self.tablet.bodies(time_s), gas])

    def bubbles(self, time_s: float) -> Bubbles:
        """Return the bubbles at a time."""
        return self.lanes.bubbles(time_s, self._bubble_base_mm)

    def line_integrals(
        self, geometry: Geometry, angle_rad: float, time_s: float, *, energy: Energy = "mean"
    ) -> np.ndarray:
        """Return float32 (n_v, n_u): ∫µ dl, dimensionless and exact, along the ray through every pixel's centre."""
        reach_mm = self.radius_mm + abs(geometry.axis_offset_mm)
        if isinstance(geometry, ConeGeometry) and geometry.source_axis_mm <= reach_mm:
            raise ValueError(
                f"source_axis_mm is {geometry.source_axis_mm} and the sample's radius {self.radius_mm}: "
                "the source lies outside the sample, so give a larger source_axis_mm"
            )
        bodies = self.bodies(time_s)
        return shapes.line_integrals(bodies, bodies.contrasts(self.attenuations(energy)), geometry, angle_rad)

    def attenuation(self, grid: Grid, time_s: float, *, energy: Energy = "mean", oversample: int = 1) -> np.ndarray:
        """Return float32 (nz, ny, nx) in 1/mm: the noise-free truth, averaged over oversample³ points a voxel."""
        if oversample < 1:
            raise ValueError(f"oversample is {oversample}: give at least 1 point a side of a voxel")
        bodies = self.bodies(time_s)
        contrasts = bodies.contrasts(self.attenuations(energy))
        offsets = (np.arange(oversample) + 0.5) / oversample - 0.5
        total = np.zeros(grid.shape, dtype=np.float32)
        for parts in np.stack(np.meshgrid(offsets, offsets, offsets), axis=-1).reshape(-1, 3):
            x, y, z = parts @ grid.steps
            total += shapes.attenuation(bodies, contrasts, grid.moved((x, y, z)))
        return total / oversample**3

    def attenuations(self, energy: Energy = "mean") -> np.ndarray:
        """Return float64 (n_materials,) in 1/mm: what each material has in this jar, by Material number."""
        return self.scale * attenuations(energy)

    def _bubble_base_mm(self, times_s: np.ndarray) -> np.ndarray:
        """Return where bubbles form at times (n_lanes, k): on the ground, or on the tablet in lanes that cross it."""
        apart = np.hypot(self.lanes.x_mm - self.tablet.x_mm, self.lanes.y_mm - self.tablet.y_mm)
        over = apart < self.lanes.radii_mm + self.tablet.footprint_mm
        on_tablet = np.maximum(self.tablet.top_mm(times_s) + self.lanes.gap_mm, self.lanes.bottoms_mm[:, None])
        return np.where(over[:, None], on_tablet, self.lanes.bottoms_mm[:, None])


def experiment(
    name: ExperimentName,
    *,
    seed: int,
    radius_mm: float,
    half_height_mm: float,
    speed: float = 1.0,
    dissolve_s: float = 300.0,
) -> Phantom:
    """Make experiment A (large, fast bubbles, as in soap) or B (small, slow, as in gel), inside a field of view.

    speed: factor on the bubbles' speed; dissolve_s: when the tablet, put in at time 0, is gone.
    """
    if name not in STYLES:
        raise ValueError(f"experiment is {name!r}: give one of {', '.join(STYLES)}")
    for label, value in {
        "radius_mm": radius_mm,
        "half_height_mm": half_height_mm,
        "speed": speed,
        "dissolve_s": dissolve_s,
    }.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{label} is {value}: give a positive number")
    unit = min(radius_mm, 1.25 * half_height_mm)
    gap = 0.004 * unit
    wall = _WALL * radius_mm
    outer, inner = _OUTER_RADIUS * radius_mm, _OUTER_RADIUS * radius_mm - wall
    bottom, top = -_HALF_HEIGHT * half_height_mm, _HALF_HEIGHT * half_height_mm
    floor = bottom + _BASE * unit
    surface = floor + _SURFACE * (top - floor)

    streams = [np.random.default_rng([seed, part]) for part in range(2)]
    ground = make_ground(rng=streams[0], within_mm=inner - gap, floor_mm=floor + gap, unit_mm=unit)
    tablet = make_tablet(
        rng=streams[1],
        unit_mm=unit,
        within_mm=inner - gap,
        ground=ground,
        gap_mm=gap,
        dissolve_s=dissolve_s,
    )
    style = STYLES[name]
    lanes = make_lanes(
        replace(style, speed=speed * style.speed),
        seed=seed,
        unit_mm=unit,
        within_mm=inner - gap,
        ground=ground,
        gap_mm=gap,
        top_mm=surface - gap,
    )
    cylinder = shapes.cylinder
    glass = cylinder(radius_mm=outer, low_mm=bottom, high_mm=top, material=Material.GLASS, displaced=Material.GAS)
    hollow = cylinder(radius_mm=inner, low_mm=floor, high_mm=top, material=Material.GAS, displaced=Material.GLASS)
    fluid = cylinder(radius_mm=inner, low_mm=floor, high_mm=surface, material=Material.FLUID, displaced=Material.GAS)
    still = shapes.joined([glass, hollow, fluid, ground])
    mean = attenuations("mean")
    scale = CENTRE_LINE_INTEGRAL / (2 * inner * mean[Material.FLUID] + 2 * wall * mean[Material.GLASS])
    return Phantom(
        name=name,
        seed=seed,
        radius_mm=radius_mm,
        half_height_mm=half_height_mm,
        scale=float(scale),
        still=still,
        tablet=tablet,
        lanes=lanes,
    )
