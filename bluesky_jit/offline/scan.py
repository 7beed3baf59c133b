"""What a whole volume is made from: a scan in a file, or a run that Tiled has recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from bluesky_jit.messages import FrameKind, ProjectionBlock


class Scan(Protocol):
    """Give a finished scan's frames in blocks, as often as they are asked for."""

    @property
    def name(self) -> str:
        """Return what people know it by: a path, or a run and its place."""
        ...

    @property
    def tomo(self) -> Mapping[str, Any]:
        """Return what it says of its set-up, as the `tomo` block of a start document does."""
        ...

    @property
    def n_projections(self) -> int: ...

    @property
    def angles_rad(self) -> np.ndarray:
        """Return the angle of each projection, (n_projections,)."""
        ...

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Return (n_v, n_u)."""
        ...

    def blocks(self, *, kinds: tuple[FrameKind, ...]) -> Iterator[ProjectionBlock]:
        """Yield all frames of these kinds, one kind after the other, projections numbered from 0 on without gaps."""
        ...
