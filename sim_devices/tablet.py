"""A tablet that dissolves: a leaning cylinder with pores, in a film of gas, eaten from all its faces at one rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim_devices.bodies import Bodies, cylinder, joined, spheres
from sim_devices.ground import top_mm
from sim_devices.materials import Material


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tablet:
    """Describe the tablet before it meets the fluid.

    x_mm, y_mm: where it stands; floor_mm: what its lowest point rests on; axis: unit vector; film_mm: thickness of the
    gas around it; pores_mm: float64 (n, 3), in the tablet's frame, whose z is its axis; pore_radii_mm: float64 (n,).
    """

    x_mm: float
    y_mm: float
    floor_mm: float
    axis: tuple[float, float, float]
    radius_mm: float
    half_thickness_mm: float
    film_mm: float
    dissolve_s: float
    pores_mm: np.ndarray
    pore_radii_mm: np.ndarray

    @property
    def footprint_mm(self) -> float:
        """Return the radius of an upright cylinder that encloses the tablet and its film at all times."""
        radius, half = self.radius_mm + self.film_mm, self.half_thickness_mm + self.film_mm
        return radius * abs(self.axis[2]) + (half + radius) * float(np.hypot(self.axis[0], self.axis[1]))

    def sizes_mm(self, time_s: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the radius, half thickness and film at some times; all are zero when it has dissolved."""
        left = np.clip(1 - np.asarray(time_s, dtype=np.float64) / self.dissolve_s, 0, 1)
        radius = self.radius_mm - (1 - left) * self.half_thickness_mm
        return np.where(left > 0, radius, 0.0), left * self.half_thickness_mm, left * self.film_mm

    def top_mm(self, time_s: np.ndarray | float) -> np.ndarray:
        """Return the height of the film's highest point at some times, or the floor's."""
        radius, half, film = self.sizes_mm(time_s)
        return self.floor_mm + 2 * self._half_height_mm(radius + film, half + film)

    def bodies(self, time_s: float) -> Bodies:
        """Return the film, the tablet in it and the pores in that."""
        radius, half, film = (float(size) for size in self.sizes_mm(time_s))
        centre = np.array([self.x_mm, self.y_mm, self.floor_mm + self._half_height_mm(radius + film, half + film)])
        # A pore is open only as far as it lies inside what is left.
        room = np.minimum(radius - np.hypot(*self.pores_mm[:, :2].T), half - np.abs(self.pores_mm[:, 2]))
        tablet = {"centre_mm": centre, "axis": self.axis, "material": Material.TABLET, "displaced": Material.GAS}
        layer = {"centre_mm": centre, "axis": self.axis, "material": Material.GAS, "displaced": Material.FLUID}
        return joined(
            [
                cylinder(low_mm=-half - film, high_mm=half + film, radius_mm=radius + film, **layer),
                cylinder(low_mm=-half, high_mm=half, radius_mm=radius, **tablet),
                spheres(
                    centre + self.pores_mm @ _frame(self.axis),
                    np.minimum(self.pore_radii_mm, 0.95 * room),
                    material=Material.GAS,
                    displaced=Material.TABLET,
                ),
            ]
        )

    def _half_height_mm(self, radius: np.ndarray | float, half: np.ndarray | float) -> np.ndarray:
        sine = np.hypot(self.axis[0], self.axis[1])
        return np.asarray(half * abs(self.axis[2]) + radius * sine)


def _frame(axis: tuple[float, float, float]) -> np.ndarray:
    """Return float64 (3, 3): rows are two directions across the axis, and the axis."""
    along = np.asarray(axis)
    across = np.cross([0.0, 1.0, 0.0], along)
    across = across / np.linalg.norm(across)
    return np.stack([across, np.cross(along, across), along])


def make_tablet(
    *, rng: np.random.Generator, unit_mm: float, within_mm: float, ground: Bodies, gap_mm: float, dissolve_s: float
) -> Tablet:
    """Make a tablet that leans a little, within a circle around the rotation axis."""
    tilt, heading = rng.uniform(0.05, 0.25), rng.uniform(0, 2 * np.pi)
    radius, half, film = 0.27 * unit_mm, 0.08 * unit_mm, 0.02 * unit_mm
    turn = rng.uniform(0, 2 * np.pi)
    pores = np.zeros((0, 4))
    for size in rng.uniform(0.014, 0.04, 40) * unit_mm:
        places = rng.uniform(-1, 1, (60, 3)) * [radius, radius, half]
        apart = np.linalg.norm(places[:, None] - pores[:, :3], axis=2)
        free = (np.hypot(*places[:, :2].T) + size < 0.95 * radius) & (np.abs(places[:, 2]) + size < 0.95 * half)
        free &= np.all(apart > pores[:, 3] + size, axis=1)
        if np.any(free):
            pores = np.concatenate([pores, [[*places[np.argmax(free)], size]]])
    tablet = Tablet(
        x_mm=0.0,
        y_mm=0.0,
        floor_mm=0.0,
        axis=(np.sin(tilt) * np.cos(heading), np.sin(tilt) * np.sin(heading), np.cos(tilt)),
        radius_mm=radius,
        half_thickness_mm=half,
        film_mm=film,
        dissolve_s=dissolve_s,
        pores_mm=pores[:, :3],
        pore_radii_mm=pores[:, 3],
    )
    off = rng.uniform(0.1, 0.7) * (within_mm - tablet.footprint_mm)
    x, y = off * np.cos(turn), off * np.sin(turn)
    floor = top_mm(ground, np.array([x]), np.array([y]), np.array([tablet.footprint_mm]))[0] + gap_mm
    return replace(tablet, x_mm=float(x), y_mm=float(y), floor_mm=float(floor))
