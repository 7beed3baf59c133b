"""Plan images of the window as it is now, or of windows in the past, and keep the plans while nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass

from bluesky_jit.tomo.frames import Frames
from bluesky_jit.tomo.geometry import Geometry
from bluesky_jit.tomo.sequence import Sequence, make_sequence
from bluesky_jit.tomo.window import Window
from bluesky_jit.tomo.window_view import WindowView


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """Keep a plan beside what it was made from."""

    view: WindowView
    until: int | None
    geometry: Geometry
    sequence: Sequence | None


class Planner:
    """Give the plans that images are made by; kept, since many patches are made from one view. Any threads ask."""

    def __init__(self, window: Window, frames: Frames, *, n_splits: int) -> None:
        self._window = window
        self._frames = frames
        self._n_splits = n_splits
        self._kept: dict[str, _Planned] = {}
        """By what they are for, since patches of now and of the past may be wanted in turns."""

    def newest(self, geometry: Geometry) -> Sequence:
        """Plan the window on show, however much of it there is, as a sequence of one frame."""
        view = self._window.view
        geometry = _geometry_of(view, geometry)
        planned = self._kept.get("newest")
        if planned and planned.sequence and planned.view is view and planned.geometry is geometry:
            return planned.sequence
        sequence = make_sequence((view,), view, geometry, self._n_splits)
        self._kept["newest"] = _Planned(view=view, until=None, geometry=geometry, sequence=sequence)
        return sequence

    def sequence(self, geometry: Geometry, until: int | None) -> Sequence | None:
        """Plan all frames, of which the last ends at acquisition number `until`; None where not all are there.

        A single frame that ends now is the window on show. Others are there when they cover all that they should, so
        that each is as bright as the others.
        """
        if until is None and self._frames.count == 1:
            return self.newest(geometry)
        view = self._window.kept
        geometry = _geometry_of(view, geometry)
        purpose = "now" if until is None else "past"
        planned = self._kept.get(purpose)
        if planned and planned.view is view and planned.until == until and planned.geometry is geometry:
            return planned.sequence
        windows = self._frames.windows(view, until)
        sequence = make_sequence(windows, view, geometry, self._n_splits) if windows else None
        if sequence and not sequence.covers_all(self._frames.n_projections):
            sequence = None
        self._kept[purpose] = _Planned(view=view, until=until, geometry=geometry, sequence=sequence)
        return sequence


def _geometry_of(view: WindowView, geometry: Geometry) -> Geometry:
    """Return the geometry to make images with.

    Which lines count once has gone into the slots of an extended field: images move with them, and not before.
    """
    return view.slot_geometry if view.slot_geometry is not None and geometry.extended_field else geometry
