"""Take a frame from raw counts to what the window holds: every correction, weight and filter, in their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bluesky_jit.tomo.correct import SATURATION, attenuation
from bluesky_jit.tomo.corrections import Corrections
from bluesky_jit.tomo.darkflat import DarkFlat
from bluesky_jit.tomo.extended import Margins, widened
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.ramp import filtered, make_filter
from bluesky_jit.tomo.virtual import virtual_detector


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameInfo:
    """Say which projection a frame is: its angle, acquisition number and time stamp."""

    angle_rad: float
    acquisition: int
    time_s: float


class Preparation:
    """Hold what frames are corrected and filtered with. One thread uses it."""

    def __init__(
        self,
        geometry: Geometry,
        *,
        margins: Margins = (0, 0),
        filter: str = "ram-lak",
        filter_cutoff: float = 1.0,
        corrections: Corrections | None = None,
        dark_flat: DarkFlat | None = None,
        saturation: int = SATURATION,
    ) -> None:
        """Begin without flats; dark_flat: another run's darks and flats, to begin with (its saturation holds then).

        margins: columns that the filtered frame has more than the detector, left and right.
        """
        if dark_flat is not None and dark_flat.shape != (geometry.n_v, geometry.n_u):
            raise ValueError(
                f"the darks and flats are {dark_flat.shape} pixels and the detector {(geometry.n_v, geometry.n_u)} "
                "(rows, columns): take them again with the present region of interest"
            )
        self.dark_flat = (
            DarkFlat.borrowed(dark_flat) if dark_flat else DarkFlat(geometry.n_v, geometry.n_u, saturation=saturation)
        )
        self.corrections = corrections or Corrections()
        self._margins = margins
        self._filter_name, self._filter_cutoff = filter, filter_cutoff
        self.set_geometry(geometry)

    def set_geometry(self, geometry: Geometry) -> None:
        """Filter for another geometry of the same detector from now on."""
        self._virtual = virtual_detector(geometry)
        self._filter = make_filter(widened(geometry, self._margins), self._filter_name, cutoff=self._filter_cutoff)

    def filtered(
        self, counts: np.ndarray, info: FrameInfo, row_weight: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Take raw counts (n_v, n_u) to float32 filtered values in 1/mm, and say what fraction was clipped.

        row_weight: (n_u,), this projection's share of the lines that others measure too (Parker); before the filter.
        """
        reference = self.dark_flat.reference_at(time_s=info.time_s, acquisition=info.acquisition)
        line_integrals, clipped = attenuation(counts, reference)
        if self._virtual is not None:
            line_integrals = self._virtual.seen(line_integrals)
        if row_weight is not None:
            line_integrals *= row_weight.astype(np.float32)
        if any(self._margins):
            line_integrals = np.pad(line_integrals, ((0, 0), self._margins))
        return filtered(line_integrals, self._filter), clipped
