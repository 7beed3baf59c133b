"""Say which windows make a sequence: time frames whose windows end one spacing apart, now or in the past."""

from __future__ import annotations

from dataclasses import dataclass

from bluesky_jit.tomo.window import Mode
from bluesky_jit.tomo.window_view import WindowView


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Describe a sequence: `count` windows of n_projections each, which end `spacing` acquisition numbers apart.

    history: acquisition numbers to be kept before the newest window, for sequences that end in the past.
    """

    n_projections: int
    n_splits: int
    count: int
    spacing: int
    history: int
    mode: Mode

    def __post_init__(self) -> None:
        if self.count < 1 or self.count % 2 == 0:
            raise ValueError(f"frames is {self.count}: give an odd number, whose middle one is the target")
        if self.history < 0:
            raise ValueError(f"history is {self.history}: give 0 or more projections")
        if self.count == 1:
            return
        if self.spacing < 1 or self.spacing % self.n_splits:
            raise ValueError(
                f"frame_spacing is {self.spacing} projections and n_splits {self.n_splits}: give a multiple of it, "
                "so that each split has the same places in all frames"
            )
        if self.mode == "whole-turns" and self.spacing % self.n_projections:
            raise ValueError(
                f'frame_spacing is {self.spacing} projections, and with window "whole-turns" frames are whole windows '
                f'of {self.n_projections}: give a multiple of it, or window "sliding" (tomo.window)'
            )

    @property
    def past(self) -> int:
        """Return how many acquisition numbers have to be kept before the newest window."""
        return max(self.history, (self.count - 1) * self.spacing)

    def windows(self, kept: WindowView, until: int | None) -> tuple[WindowView, ...] | None:
        """Return the window of each frame, the oldest first, of which the last ends at acquisition number `until`.

        until: the newest one when None; with "whole-turns" the last whole window that has ended by then. Returns None
        when `until` has not come, or something that the first frame is to hold is no longer kept.
        """
        end = kept.end if until is None else until + 1
        if self.mode == "whole-turns":
            end = end // self.n_projections * self.n_projections
        ends = [end - k * self.spacing for k in reversed(range(self.count))]
        if end > kept.end or max(ends[0] - self.n_projections, 0) < kept.begin:
            return None
        return tuple(kept.between(end - self.n_projections, end) for end in ends)
