"""What a model was trained on: the set-up, its noise and the preset, and how far two of these are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from bluesky_jit.tomo.geometry import Geometry

COMPARED = ("voxel_mm", "noise", "exposure_s", "energy_kev")
"""What two set-ups are compared by, in factors of two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Describe the set-up and data that a model belongs to.

    kind: the beam's, "cone" or "parallel"; voxel_mm: of the patches; noise: standard deviation of one split's noise, in
    1/mm; exposure_s, energy_kev: None where the run does not say; geometry: the other numbers of the set-up; run_uid:
    of the raw run.
    """

    preset: str
    kind: str
    pixel_mm: float
    voxel_mm: float
    noise: float
    exposure_s: float | None = None
    energy_kev: float | None = None
    geometry: Mapping[str, float] = field(default_factory=dict)
    run_uid: str = ""

    def __post_init__(self) -> None:
        for name in ("pixel_mm", *COMPARED):
            value = getattr(self, name)
            if value is None and name in ("exposure_s", "energy_kev"):
                continue
            if not (isinstance(value, int | float) and value is not True and 0 < value < math.inf):
                raise ValueError(f"{name} of a fingerprint is {value!r}: give a positive number")
        for name in ("preset", "kind", "run_uid"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} of a fingerprint is {getattr(self, name)!r}: give a text")

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        *,
        preset: str,
        voxel_mm: float,
        noise: float,
        exposure_s: float | None = None,
        energy_kev: float | None = None,
        run_uid: str = "",
    ) -> Self:
        """Make the fingerprint of a run; shifts measured angle by angle are left out."""
        numbers = {
            name: float(value)
            for name, value in geometry.to_metadata().items()
            if name != "pixel_mm" and isinstance(value, int | float)
        }
        return cls(
            preset=preset,
            kind=geometry.kind,
            pixel_mm=geometry.pixel_mm,
            voxel_mm=voxel_mm,
            noise=noise,
            exposure_s=exposure_s,
            energy_kev=energy_kev,
            geometry=numbers,
            run_uid=run_uid,
        )

    def distance(self, other: Fingerprint) -> float:
        """Return how far two set-ups are apart: 1 is a factor of two in one of voxel, noise, exposure and energy.

        Several differences add as lengths do; what either does not know is left out. Infinite for another preset or
        kind of beam.
        """
        if (self.preset, self.kind) != (other.preset, other.kind):
            return math.inf
        known = [(mine, its) for name in COMPARED if (mine := getattr(self, name)) and (its := getattr(other, name))]
        return math.hypot(*(math.log2(mine / its) for mine, its in known))

    def to_metadata(self) -> dict[str, Any]:
        """Return what JSON keeps, all of it."""
        return {**asdict(self), "geometry": dict(self.geometry)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """Make the fingerprint that `to_metadata` described; raise ValueError when it is none."""
        names = {part.name for part in fields(cls)}
        if not isinstance(metadata, Mapping) or set(metadata) != names:
            raise ValueError(f"the fingerprint does not have the entries {', '.join(sorted(names))}")
        return cls(**metadata)
