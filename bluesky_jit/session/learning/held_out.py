"""Windows of projections that are kept from training, so that the network can be judged on what it has never seen."""

from __future__ import annotations


class HeldOutWindows:
    """Say up to which projection training pairs may be made, and when a window of unseen projections has come.

    A cut freezes the windows that pairs are made from; when `reach` more projections have come, a window holds none
    that was trained on. Then the network is judged, and the cut is lifted. One window in `every` passes like that, one
    in two after the network has failed. Numbers are acquisition numbers; one thread asks.
    """

    def __init__(self, *, reach: int, every: int) -> None:
        """Start with nothing trained on; reach: projections that one image is made of; every: 0 for no cuts."""
        self._reach = reach
        self._every = every
        self._cut: int | None = None
        self._judged_at: int | None = None
        self._next_cut: int | None = None
        self.trained_to = -1
        """The newest projection that any training pair was made of."""

    @property
    def is_cut(self) -> bool:
        """Say whether newer projections than those trained on are being kept back."""
        return self._cut is not None

    def until(self, newest: int) -> int:
        """Return where the windows of the next training pairs are to end."""
        return newest if self._cut is None else self._cut

    def trained_on(self, until: int, *, worth_judging: bool = True) -> None:
        """Note that pairs were made of windows that end at `until`; where a cut is due, it begins there.

        So what the pairs of a cut are made of is known to be there. worth_judging: whether a cut may begin; to judge a
        network that has hardly begun to learn would cost a window.
        """
        self.trained_to = max(self.trained_to, until)
        due = self._every > 0 and (self._next_cut is None or until >= self._next_cut)
        # Frames may be numbered back: what was trained on then stays so.
        if self._cut is None and due and worth_judging and until == self.trained_to:
            self._cut = until

    @property
    def ever_cut(self) -> bool:
        """Say whether projections are kept back at all, so that the window remembers older ones."""
        return self._every > 0

    def is_unseen(self, newest: int) -> bool:
        """Say whether the newest window holds nothing that was trained on, nor of the last one that was judged."""
        known = self.trained_to if self._judged_at is None else max(self.trained_to, self._judged_at)
        return self._every > 0 and self.trained_to >= 0 and newest - known >= self._reach

    def judged(self, newest: int, *, passed: bool = True) -> None:
        """Lift the cut: a window that ended at `newest` has been judged."""
        self._cut, self._judged_at = None, newest
        self._next_cut = newest + ((self._every if passed else min(self._every, 2)) - 1) * self._reach

    def lift(self, newest: int) -> None:
        """Lift the cut without a judgement, after a jump: a window that holds anything of before is of no use.

        Neither is one to be judged, nor may a cut begin, before a window has come since.
        """
        self._cut, self._judged_at = None, newest
        self._next_cut = newest + self._reach
