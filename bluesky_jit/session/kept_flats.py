"""The darks and flats of earlier runs, for those that name them and for those that have none yet."""

from __future__ import annotations

from bluesky_jit.messages import RunStart
from bluesky_jit.tomo.corrections.darkflat import DarkFlat

RUNS_KEPT = 8
"""Runs whose darks and flats can be borrowed; two float32 images of the detector each."""
KNOWN = ("image_key", "exposure_s")
"""What a run's metadata must say, and the same, for the flats of another to do: nobody has named that run."""
SAME = ("geometry", "pixel_mm", "source_axis_mm", "source_detector_mm", "detector_u_mm", "detector_v_mm", "energy_kev")
"""What must be the same, or left to the settings in both."""


class KeptFlats:
    """Keep the darks and flats of the runs that had some and were last used."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[RunStart, DarkFlat]] = {}

    def keep(self, start: RunStart, dark_flat: DarkFlat) -> None:
        """Keep a run's darks and flats; those that it has borrowed are another's, and an estimate is nobody else's."""
        if dark_flat.ready and not dark_flat.flats_are_borrowed:
            self._kept[start.run_uid] = start, dark_flat
            self._use(start.run_uid)
        while len(self._kept) > RUNS_KEPT:
            del self._kept[next(iter(self._kept))]

    def of(self, run_uid: str) -> DarkFlat | None:
        """Return the darks and flats of a run, if they are kept."""
        return self._use(run_uid) if run_uid in self._kept else None

    def like(self, start: RunStart, frame_shape: tuple[int, int]) -> tuple[str, DarkFlat] | None:
        """Return the newest run that is surely of the same set-up, with flats of its own, and these."""
        known = all(start.tomo.get(key) is not None for key in KNOWN)
        for uid, (other, dark_flat) in reversed(self._kept.items()) if known else ():
            same = all(other.tomo.get(key) == start.tomo.get(key) for key in KNOWN + SAME)
            if same and dark_flat.shape == frame_shape:
                return uid, self._use(uid)
        return None

    def _use(self, run_uid: str) -> DarkFlat:
        """Return what is kept of a run, now the last one to be forgotten."""
        kept = self._kept.pop(run_uid)
        self._kept[run_uid] = kept
        return kept[1]
