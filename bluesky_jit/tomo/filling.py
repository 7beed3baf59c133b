"""Fill a window with projections that are filtered as they should be now."""

from __future__ import annotations

import numpy as np

from bluesky_jit.messages import ProjectionBlock
from bluesky_jit.tomo.arcs import covered_arc
from bluesky_jit.tomo.corrections.darkflat import DarkFlat
from bluesky_jit.tomo.extended import margins_of, widened
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.prepare import FrameInfo, Preparation
from bluesky_jit.tomo.ramp import fan_weight
from bluesky_jit.tomo.redundancy import ShortScan, row_weight, short_scan_of
from bluesky_jit.tomo.window import Window

SAME_WEIGHT = 2e-4
"""Change of a fan's weights that is not worth filtering the window again: a tenth of what values are held to. Where the
axis is tracked, it moves again and again by less than a pixel."""


class Filling:
    """Correct, weigh and filter frames into a window, and again when they would come out otherwise. One thread uses it.

    planned_arc_rad: the arc that the run is to cover, if known.
    """

    def __init__(
        self, geometry: Geometry, window: Window, preparation: Preparation, *, planned_arc_rad: float | None
    ) -> None:
        self._window = window
        self._preparation = preparation
        self._planned_arc_rad = planned_arc_rad
        self._geometry = self._weighted_for = geometry
        """What projections are filtered for, and what all of them were when the window was last filtered."""
        self._stale = False
        """The window's projections were not filtered with the darks, flats and geometry that hold now."""
        self._known = 0
        """The preparation's revision that the window's projections were filtered at, or an earlier one."""

    def take_reference(self, block: ProjectionBlock) -> None:
        """Take darks or flats in, to be used from the next projection, or when it settles, on.

        Raises ValueError when flats show no beam. Not filtered at once: late flats come one by one, and the window
        takes a second to filter.
        """
        dark_flat = self._preparation.dark_flat
        if not len(block):
            return
        try:
            if block.kind == "dark":
                dark_flat.add_darks(block.counts)
            else:
                after = self._window.next_acquisition if block.after is None else block.after
                dark_flat.add_flats(block.counts, times_s=block.frame_times_s, after=after)
            self._stale = True
        finally:
            if not dark_flat.ready and self._window.view.filtered:
                # These darks have shown that the flats had no beam: what was filtered with them is worth nothing.
                self._window.unfilter()

    def borrow(self, other: DarkFlat, *, unasked: bool) -> None:
        """Use another run's darks and flats until this one's own come; unasked: nobody has named that run.

        Raises ValueError when they do not fit what this run has.
        """
        self._preparation.dark_flat.borrow(other, unasked=unasked)
        self._stale = True

    def take_estimated_flat(self, flat: np.ndarray) -> None:
        """Use an estimate (n_v, n_u) in the place of flats until the first one comes.

        Raises ValueError when it shows no beam.
        """
        self._preparation.dark_flat.stand_in(flat)
        self._stale = True

    def take_projections(self, block: ProjectionBlock, geometry: Geometry) -> None:
        """Take projections in, filtered for a geometry; only their counts while there are no flats."""
        if not np.isfinite(block.angles_rad).all():
            missing = int(block.acquisition[~np.isfinite(block.angles_rad)][0])
            raise ValueError(
                f"projection {missing} has no angle: give the angle's data key (settings: intake.angle_key)"
            )
        if len(block):
            self.settle(geometry)
        for n in range(len(block)):
            info = FrameInfo(
                angle_rad=float(block.angles_rad[n]),
                acquisition=int(block.acquisition[n]),
                time_s=float(block.frame_times_s[n]),
            )
            filtered, clipped = None, 0.0
            if self._preparation.dark_flat.ready:
                filtered, clipped = self._filtered(block.counts[n], info, self._window.view.short_scan)
            self._window.push(block.counts[n], filtered, info, unique_id=int(block.unique_ids[n]), clipped=clipped)

    def settle(self, geometry: Geometry, *, drained: bool = False) -> bool:
        """Filter the window's projections again where they would now come out otherwise; return whether they did.

        They do after darks or flats, a move of the axis, when rings are known better, and when what they cover turns
        out to be part of a turn; drained: no more projections will come.
        """
        # Until it has come true: filtering may fail, and is then tried again.
        self._stale = self._takes_new_geometry(geometry) or self._stale
        view = self._window.view
        if not self._preparation.dark_flat.ready:
            return False
        slot_geometry = widened(geometry, margins_of(geometry)) if self._stale or not len(view) else view.slot_geometry
        if not len(view) and slot_geometry == view.slot_geometry:
            self._stale = False
            return False
        short_scan = short_scan_of(
            covered_arc(view.angles_rad, geometry.period_rad),
            geometry,
            view.angles_rad,
            view.acquisition,
            present=view.short_scan,
            planned_rad=self._planned_arc_rad,
            drained=drained,
        )
        if not self._stale and self._preparation.revision == self._known and short_scan == view.short_scan:
            return False
        while True:
            revision = self._preparation.revision
            self._window.refilter(
                lambda counts, info: self._filtered(counts, info, short_scan),
                short_scan=short_scan,
                slot_geometry=slot_geometry,
            )
            self._known, self._weighted_for, self._stale = revision, geometry, False
            # On the way rings may have come to be known, and the first projections deserve it too.
            if self._preparation.revision == self._known:
                return len(view) > 0

    def _takes_new_geometry(self, geometry: Geometry) -> bool:
        """Filter for another geometry from now on; return whether that makes a difference."""
        if geometry is self._geometry:
            return False
        self._preparation.set_geometry(geometry, margins=margins_of(geometry))
        self._geometry = geometry
        if geometry.extended_field or self._window.view.short_scan:
            # What counts once and what twice moves with the axis.
            return True
        change = fan_weight(geometry) - fan_weight(self._weighted_for)
        return float(np.abs(change).max()) > SAME_WEIGHT

    def _filtered(self, counts: np.ndarray, info: FrameInfo, short_scan: ShortScan | None) -> tuple[np.ndarray, float]:
        return self._preparation.filtered(counts, info, row_weight(self._geometry, info.angle_rad, short_scan))
