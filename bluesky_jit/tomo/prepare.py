"""Take a frame from raw counts to what the window holds: every correction, weight and filter, in their order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bluesky_jit.tomo.corrections.air import Beam, Side, air_side, beam_of, level_out, require_columns
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.corrections.hardening import linearised
from bluesky_jit.tomo.corrections.phase import make_phase_filter, retrieved
from bluesky_jit.tomo.corrections.rings import RingEstimate
from bluesky_jit.tomo.corrections.transmission import SATURATION, make_reference, transmission
from bluesky_jit.tomo.corrections.wanted import Corrections
from bluesky_jit.tomo.corrections.zingers import remove_zingers
from bluesky_jit.tomo.extended import Margins, widened
from bluesky_jit.tomo.geometry import Geometry, ParallelGeometry
from bluesky_jit.tomo.ramp import filtered, make_filter
from bluesky_jit.tomo.virtual import virtual_detector


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameInfo:
    """Say which projection a frame is: its angle, acquisition number and time stamp."""

    angle_rad: float
    acquisition: int
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Say what corrections have found so far.

    frames: corrected, again included; zingers: pixels replaced in them; beam: the newest one's, None without air
    columns; most_drift: the largest difference of a beam from the flats, as part of them, with its sign; obstructed:
    frames in which one side's air columns saw no air.
    """

    frames: int = 0
    zingers: int = 0
    beam: Beam | None = None
    most_drift: float = 0.0
    obstructed: int = 0

    @property
    def zingers_per_frame(self) -> float:
        return self.zingers / self.frames if self.frames else 0.0

    def with_frame(self, zingers: int, beam: Beam | None) -> Found:
        """Return the same with one more frame."""
        drift = 0.0 if beam is None else beam.level - 1
        return replace(
            self,
            frames=self.frames + 1,
            zingers=self.zingers + zingers,
            beam=beam,
            most_drift=max(self.most_drift, drift, key=abs),
            obstructed=self.obstructed + (beam is not None and beam.obstructed),
        )


def _warm_up() -> None:
    """Compile what every frame needs, or load it from the cache, before the first one comes."""
    image = np.ones((2, 2), dtype=np.float32)
    values, _ = transmission(np.ones((2, 2), dtype=np.uint16), make_reference(0 * image, 10 * image))
    remove_zingers(values, 1.0)
    filtered(values, make_filter(ParallelGeometry(n_u=2, n_v=2, pixel_mm=1.0)))


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
        self.corrections = wanted = corrections or Corrections()
        self.found = Found()
        self.revision = 0
        """Grows when projections filtered before would now come out otherwise: when rings are known better, which a
        move of the axis can do too."""
        require_columns(wanted.air_columns, geometry.n_u)
        self._phase = (
            make_phase_filter(
                geometry,
                delta_beta=wanted.delta_beta,
                energy_kev=wanted.energy_kev,
                propagation_mm=wanted.propagation_mm,
            )
            if wanted.delta_beta and wanted.energy_kev is not None
            else None
        )
        self._rings = (
            RingEstimate(
                geometry.n_v,
                geometry.n_u,
                width=wanted.ring_width,
                projections=wanted.ring_projections,
                period_rad=geometry.period_rad,
            )
            if wanted.ring_width
            else None
        )
        self._rings_of = self.dark_flat.revision
        self._filter_name, self._filter_cutoff = filter, filter_cutoff
        self.set_geometry(geometry, margins=margins)
        _warm_up()

    def set_geometry(self, geometry: Geometry, *, margins: Margins = (0, 0)) -> None:
        """Filter for another geometry of the same detector from now on, into slots with these margins."""
        self._margins = margins
        self._virtual = virtual_detector(geometry)
        self._air_side: Side | None = air_side(geometry)
        self._filter = make_filter(widened(geometry, margins), self._filter_name, cutoff=self._filter_cutoff)
        if self._rings is not None:
            centre = geometry.detector_matrices(np.zeros(1))[0, :, 3]
            correction = self._rings.correction
            self._rings.axis_u = float(centre[0] / centre[2])
            self.revision += self._rings.correction is not correction

    def filtered(
        self, counts: np.ndarray, info: FrameInfo, row_weight: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Take raw counts (n_v, n_u) to float32 filtered values in 1/mm, and say what fraction was clipped.

        row_weight: (n_u,), this projection's share of the lines that others measure too (Parker); before the filter.
        """
        line_integrals, clipped = self.line_integrals(counts, info)
        if self._virtual is not None:
            line_integrals = self._virtual.seen(line_integrals)
        if row_weight is not None:
            line_integrals *= row_weight.astype(np.float32)
        if any(self._margins):
            line_integrals = np.pad(line_integrals, ((0, 0), self._margins))
        return filtered(line_integrals, self._filter), clipped

    def line_integrals(self, counts: np.ndarray, info: FrameInfo) -> tuple[np.ndarray, float]:
        """Take raw counts (n_v, n_u) to corrected line integrals, float32, and say what fraction was clipped.

        Zingers go first, for a zinger in the air is no drift; rings last, for they are what the rest leaves.
        """
        wanted = self.corrections
        reference = self.dark_flat.reference_at(time_s=info.time_s, acquisition=info.acquisition)
        values, clipped = transmission(counts, reference)
        zingers = remove_zingers(values, wanted.zinger_threshold) if wanted.zinger_threshold else 0
        beam = beam_of(values, wanted.air_columns, self._air_side) if wanted.air_columns else None
        if beam is not None:
            level_out(values, beam, wanted.air_columns)
        if self._phase is not None:
            values = retrieved(values, self._phase)
        else:
            np.log(values, out=values)
            np.negative(values, out=values)
        if wanted.hardening:
            values = linearised(values, wanted.hardening)
        if self._rings is not None:
            self._take_out_rings(self._rings, values, info)
        self.found = self.found.with_frame(zingers, beam)
        return values, clipped

    def _take_out_rings(self, rings: RingEstimate, values: np.ndarray, info: FrameInfo) -> None:
        if self._rings_of != self.dark_flat.revision:
            # Other flats leave other rings.
            rings.forget()
            self._rings_of = self.dark_flat.revision
        stage = rings.stage
        rings.update(values, info.acquisition, info.angle_rad)
        self.revision += rings.stage > stage
        if rings.correction is not None:
            values -= rings.correction
