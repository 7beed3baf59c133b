"""The darks and flats of earlier runs, for those that name them and for those that have none yet."""

from __future__ import annotations

from bluesky_jit.messages import RunStart
from bluesky_jit.tomo.corrections.darkflat import DarkFlat

RUNS_KEPT = 8
"""Runs whose darks and flats can be borrowed; two float32 images of the detector each."""
SET_UP = ("pixel_mm", "exposure_s", "energy_kev")
"""What must be the same in a run's metadata for the flats of another to do."""


class KeptFlats:
    """Keep the darks and flats of the last runs that had some."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[RunStart, DarkFlat]] = {}

    def keep(self, start: RunStart, dark_flat: DarkFlat) -> None:
        """Keep a run's darks and flats; an estimate is nobody else's."""
        if dark_flat.ready and not dark_flat.flats_are_estimated:
            self._kept.pop(start.run_uid, None)
            self._kept[start.run_uid] = start, dark_flat
        while len(self._kept) > RUNS_KEPT:
            del self._kept[next(iter(self._kept))]

    def of(self, run_uid: str) -> DarkFlat | None:
        """Return the darks and flats of a run, if they are kept."""
        kept = self._kept.get(run_uid)
        return kept[1] if kept else None

    def like(self, start: RunStart, frame_shape: tuple[int, int]) -> tuple[str, DarkFlat] | None:
        """Return the newest run of the same set-up with flats of its own, and these."""
        for uid, (other, dark_flat) in reversed(self._kept.items()):
            same = all(other.tomo.get(key) == start.tomo.get(key) for key in SET_UP)
            if same and dark_flat.shape == frame_shape and not dark_flat.flats_are_borrowed:
                return uid, dark_flat
        return None
