"""Noise2Inverse: where training patches lie, and how the splits of a patch become a training pair.

A guard region is never trained on, so that quality can be told from patches that the network has not seen. It is a slab
through the middle of the sample, inclined to all three axes: it crosses horizontal slices at every height and most
upright ones, and so the held-out figure is about what people look at. (A z band would miss most horizontal slices, a
sector most upright ones.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bluesky_jit.messages import Pairs
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.grid import Grid

ROUNDS = 8
"""Times that poses are proposed, at least eight for each patch still missing, before patches are placed elsewhere."""
FEWEST_ROWS = 8
"""Rows of a held-out patch at least: fewer tell more of the network's edges than of the sample."""

Poses = tuple[np.ndarray, np.ndarray]
"""Centres (m, 3) and the z, y and x steps (m, 3, 3) of patches, in mm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Describe the cylinder around the rotation axis that patches are taken from."""

    radius_mm: float
    half_height_mm: float

    def __post_init__(self) -> None:
        for name in ("radius_mm", "half_height_mm"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}: give a positive number of mm")

    @classmethod
    def seen_by(cls, geometry: Geometry) -> Region:
        """Make the cylinder that every projection sees whole."""
        radius_mm, half_height_mm = geometry.cylinder_mm
        return cls(radius_mm=radius_mm, half_height_mm=half_height_mm)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which of the points (…, 3), in mm, lie in the cylinder."""
        return (np.hypot(points[..., 0], points[..., 1]) <= self.radius_mm) & (
            abs(points[..., 2]) <= self.half_height_mm
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Describe the slab that is never trained on: the points p with |normal · p − offset_mm| ≤ thickness_mm / 2."""

    normal: tuple[float, float, float]
    offset_mm: float
    thickness_mm: float

    @classmethod
    def across(cls, region: Region, *, thickness_mm: float) -> Guard:
        """Make the slab through the middle that crosses horizontal slices at every height and most upright ones."""
        normal = np.array([1 / region.radius_mm, 1 / region.radius_mm, 1 / region.half_height_mm])
        x, y, z = (float(value) for value in normal / np.linalg.norm(normal))
        return cls(normal=(x, y, z), offset_mm=0.0, thickness_mm=thickness_mm)

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Return how far the points (…, 3) lie from the middle of the slab, in mm, with a sign."""
        return points @ np.asarray(self.normal) - self.offset_mm

    def touches(self, corners: np.ndarray) -> np.ndarray:
        """Return which patches, given by their corners (…, 8, 3), have a point in the slab."""
        distances = self.distances(corners)
        half = self.thickness_mm / 2
        return ~(np.all(distances > half, axis=-1) | np.all(distances < -half, axis=-1))

    def holds(self, corners: np.ndarray) -> np.ndarray:
        """Return which patches, given by their corners (…, 8, 3), lie wholly in the slab."""
        return np.all(abs(self.distances(corners)) <= self.thickness_mm / 2, axis=-1)


class PatchSampler:
    """Draw the poses of patches: a quarter from the whole region, turned at random, the rest near the slices on show.

    Patches near a slice lie in planes parallel to it, with its directions and voxel size; the others have the voxel
    size of one of the slices, or `voxel_mm` when none is on show. A patch's centre lies in the region; at the rim it
    may stick out, for a rim that is seldom seen would be denoised badly and judged too well.
    """

    def __init__(
        self,
        region: Region,
        *,
        voxel_mm: float,
        patch: int = 20,
        batch: int = 32,
        depth: int = 1,
        seed: int = 0,
        guard: Guard | None = None,
        whole_fraction: float = 0.25,
        shown: Iterable[Grid] = (),
    ) -> None:
        if patch < FEWEST_ROWS:
            raise ValueError(f"learn.patch is {patch}: give at least {FEWEST_ROWS} points")
        self.region = region
        self.guard = guard or Guard.across(region, thickness_mm=min(1.25 * patch * voxel_mm, 0.3 * region.radius_mm))
        self._voxel_mm = voxel_mm
        self._patch = patch
        self._batch = batch
        self._depth = depth
        self._near_count = batch - round(whole_fraction * batch)
        self._near_mm = patch * voxel_mm / 2
        train_seed, held_out_seed = np.random.SeedSequence(seed).spawn(2)
        self._train_rng = np.random.default_rng(train_seed)
        self._held_out_rng = np.random.default_rng(held_out_seed)
        self._shown: tuple[Grid, ...] = ()
        # A region without room for patches is refused here, not in the middle of a run.
        self._train(np.random.default_rng(seed))
        self._held_out(np.random.default_rng(seed))
        self.show(shown)

    def show(self, grids: Iterable[Grid]) -> None:
        """Follow the slices on show from the next batch on."""
        self._shown = tuple(grids)

    def train(self) -> tuple[Grid, ...]:
        """Return the grids of a batch to train on, none of which touches the guard region."""
        return self._train(self._train_rng)

    def held_out(self) -> tuple[Grid, ...]:
        """Return the grids of a batch within the guard region, in the slices on show where they cross it.

        Their columns run along the guard. Where it is thinner than a patch they have fewer rows and more columns.
        """
        return self._held_out(self._held_out_rng)

    def _train(self, rng: np.random.Generator) -> tuple[Grid, ...]:
        shown = self._shown
        shape = (self._depth, self._patch, self._patch)

        def near(count: int) -> Poses:
            centres, steps, _ = _poses_near(rng, shown, count, self._near_mm)
            return centres, steps

        def whole(count: int, voxels_mm: np.ndarray) -> Poses:
            return _centres_in(rng, self.region, count), _rotations(rng, count) * voxels_mm[:, None, None]

        def allowed(corners: np.ndarray) -> np.ndarray:
            return self.region.contains(corners.mean(axis=1)) & ~self.guard.touches(corners)

        anywhere = [
            lambda count: whole(count, _voxels_mm(rng, shown, self._voxel_mm, count)),
            lambda count: whole(count, np.full(count, self._voxel_mm)),
        ]
        n_near = self._near_count if shown else 0
        return _collect(n_near, shape, [near, *anywhere] if shown else anywhere, allowed) + _collect(
            self._batch - n_near, shape, anywhere, allowed
        )

    def _held_out(self, rng: np.random.Generator) -> tuple[Grid, ...]:
        shown = self._shown
        shape = self._held_out_shape(shown)

        def near(count: int) -> Poses:
            centres, steps, slices = _poses_near(rng, shown, count, self._near_mm / 4)
            steps = _along(self.guard, steps)
            across = steps[:, 1] / np.linalg.norm(steps[:, 1], axis=1, keepdims=True)
            centres = self._moved_in(rng, centres, steps, across, shape)
            return centres[_inside(shown, slices, centres)], steps[_inside(shown, slices, centres)]

        def whole(count: int, steps: np.ndarray) -> Poses:
            steps = _along(self.guard, steps)
            across = np.tile(self.guard.normal, (count, 1))
            return self._moved_in(rng, _centres_in(rng, self.region, count), steps, across, shape), steps

        def allowed(corners: np.ndarray) -> np.ndarray:
            return self.region.contains(corners.mean(axis=1)) & self.guard.holds(corners)

        anywhere = [lambda count: whole(count, _rotations(rng, count) * self._voxel_mm)]
        if not shown:
            return _collect(self._batch, shape, anywhere, allowed)
        parallel = lambda count: whole(count, _poses_near(rng, shown, count, 0.0)[1])  # noqa: E731
        return _collect(self._batch, shape, [near, parallel, *anywhere], allowed)

    def _held_out_shape(self, shown: tuple[Grid, ...]) -> tuple[int, int, int]:
        """Return the largest patch, of about as many points as the others, that fits across the guard."""
        coarsest = max([self._voxel_mm, *(float(np.linalg.norm(grid.steps[1])) for grid in shown)])
        rows = int(np.clip(0.85 * self.guard.thickness_mm / coarsest, FEWEST_ROWS, self._patch))
        return self._depth, rows, min(round(self._patch**2 / rows), 2 * self._patch)

    def _moved_in(
        self,
        rng: np.random.Generator,
        centres: np.ndarray,
        steps: np.ndarray,
        directions: np.ndarray,
        shape: tuple[int, int, int],
    ) -> np.ndarray:
        """Move patches along unit directions (m, 3) into the guard, anywhere that they fit across it."""
        normal = np.asarray(self.guard.normal)
        half_extent = abs(steps @ normal) @ ((np.array(shape) - 1) / 2)
        slack = np.maximum(self.guard.thickness_mm / 2 - half_extent, 0.0)
        wanted = rng.uniform(-1, 1, len(centres)) * slack
        slope = directions @ normal
        # A slice along the guard never meets it by moving within itself; such a patch stays where it is.
        distance = np.where(
            abs(slope) > 1e-6, (wanted - self.guard.distances(centres)) / np.where(slope, slope, 1.0), 0.0
        )
        return centres + distance[:, None] * directions


def make_pairs(splits: np.ndarray, *, rng: np.random.Generator | None = None) -> Pairs:
    """Make training pairs of the splits of patches: float32 (n, K, nz, ny, nx), K at least 2.

    Two splits are u and v. Of more, one drawn for each patch is the input u, and the mean of the others the target v.
    """
    n, count = splits.shape[:2]
    if count < 2:
        raise ValueError(f"there is {count} split: Noise2Inverse needs at least 2")
    if count == 2:
        return Pairs(u=splits[:, 0][:, None], v=splits[:, 1][:, None])
    if rng is None:
        raise ValueError(f"of {count} splits the input is drawn at random: give rng")
    chosen = rng.integers(count, size=n)
    u = splits[np.arange(n), chosen]
    v = (splits.sum(axis=1) - u) / np.float32(count - 1)
    return Pairs(u=u[:, None], v=v[:, None])


def _collect(
    wanted: int,
    shape: tuple[int, int, int],
    proposals: Sequence[Callable[[int], Poses]],
    allowed: Callable[[np.ndarray], np.ndarray],
) -> tuple[Grid, ...]:
    """Return grids at the first poses that are allowed; a proposal that falls short gives way to the next."""
    half = (np.array(shape) - 1) / 2
    signs = np.stack(np.meshgrid(*[(-1, 1)] * 3, indexing="ij"), axis=-1).reshape(8, 3)
    grids: list[Grid] = []
    for propose in proposals:
        for _ in range(ROUNDS):
            missing = wanted - len(grids)
            if missing == 0:
                return tuple(grids)
            centres, steps = propose(max(8 * missing, 128))
            corners = centres[:, None] + (signs * half) @ steps
            for chosen in np.flatnonzero(allowed(corners))[:missing]:
                z, y, x = steps[chosen]
                grids.append(Grid(origin=corners[chosen, 0], z_step=z, y_step=y, x_step=x, shape=shape))
    if len(grids) < wanted:
        raise ValueError(
            f"patches of {shape} points find no room beside the guard region: give a smaller learn.patch or voxel"
        )
    return tuple(grids)


def _poses_near(
    rng: np.random.Generator, shown: tuple[Grid, ...], count: int, near_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centres, steps and the slices' numbers: uniform over a slice's face, and at most near_mm out of it."""
    slices = rng.integers(len(shown), size=count)
    steps = np.stack([grid.steps for grid in shown])[slices]
    origins = np.array([grid.origin for grid in shown])[slices]
    places = rng.random((count, 3)) * (np.array([grid.shape for grid in shown])[slices] - 1)
    normals = steps[:, 0] / np.linalg.norm(steps[:, 0], axis=1, keepdims=True)
    out = rng.uniform(-near_mm, near_mm, size=(count, 1))
    return origins + np.einsum("mk,mkc->mc", places, steps) + out * normals, steps, slices


def _inside(shown: tuple[Grid, ...], slices: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return which centres lie over the face of their slice."""
    inside = np.zeros(len(centres), dtype=bool)
    for number, grid in enumerate(shown):
        mine = slices == number
        places = (centres[mine] - grid.origin) @ np.linalg.inv(grid.steps)
        inside[mine] = np.all((places[:, 1:] >= 0) & (places[:, 1:] <= np.array(grid.shape[1:]) - 1), axis=1)
    return inside


def _along(guard: Guard, steps: np.ndarray) -> np.ndarray:
    """Turn patches (m, 3, 3) within their planes until their rows (x steps) run along the guard."""
    sizes = np.linalg.norm(steps, axis=2, keepdims=True)
    z = steps[:, 0] / sizes[:, 0]
    x = np.cross(guard.normal, z)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    # A plane along the guard has no such direction; there any will do.
    x = np.where(length > 1e-6, x / np.where(length > 0, length, 1.0), steps[:, 2] / sizes[:, 2])
    return np.stack([z, np.cross(z, x), x], axis=1) * sizes


def _voxels_mm(rng: np.random.Generator, shown: tuple[Grid, ...], voxel_mm: float, count: int) -> np.ndarray:
    """Return voxel sizes: of slices on show, drawn at random, or else the usual one."""
    sizes = np.array([np.linalg.norm(grid.steps[2]) for grid in shown] or [voxel_mm])
    return sizes[rng.integers(len(sizes), size=count)]


def _centres_in(rng: np.random.Generator, region: Region, count: int) -> np.ndarray:
    """Return points (count, 3) uniform over the cylinder, in mm."""
    radius = region.radius_mm * np.sqrt(rng.random(count))
    azimuth = rng.uniform(0, 2 * np.pi, count)
    height = rng.uniform(-region.half_height_mm, region.half_height_mm, count)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], axis=1)


def _rotations(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return rotation matrices (count, 3, 3), uniform: from unit quaternions, which are uniform on their sphere."""
    q = rng.normal(size=(count, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)
