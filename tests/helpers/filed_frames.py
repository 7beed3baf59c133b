"""Messages about frames in files, with no more said of them than must be."""

from __future__ import annotations

from bluesky_jit.messages import Asset, AssetFrames, FrameKind


def filed_frames(image: Asset, *, run_uid: str, kind: FrameKind, angle: Asset | None = None) -> AssetFrames:
    """Return the message about frames whose numbers and time stamps no file has."""
    return AssetFrames(
        run_uid=run_uid,
        kind=kind,
        image=image,
        angle=angle,
        unique_id=None,
        frame_time=None,
        angle_scale=1.0,
        angles_rad=None,
        angle_source="same stream",
        document_time_s=0.0,
    )
