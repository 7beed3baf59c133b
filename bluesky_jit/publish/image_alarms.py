"""Decide which images on show can be trusted: an image of another run, or of a denoiser in doubt, never looks live."""

from __future__ import annotations

from typing import NamedTuple

from bluesky_jit.messages import RunOpened, SessionStatus, Severity, SinkMessage, Update
from bluesky_jit.publish import table

IMAGES = tuple(row.name for row in table.rows("image"))
LEARNED = tuple(name for name in IMAGES if not name.endswith(":Raw") and name != "Preview")
"""What comes of learning: not of a run whose denoiser is not ready."""
NO_IMAGE = "no image of this run yet"


class ImageAlarm(NamedTuple):
    """Hold how far an image can be trusted, and why no further."""

    severity: Severity
    text: str


class ImageAlarms:
    """Follow what is published and know the alarm of every image."""

    def __init__(self) -> None:
        self._run_uid = ""
        self._state = ImageAlarm("NO_ALARM", "")
        self._invalid = dict.fromkeys(IMAGES, NO_IMAGE)
        self._shown = {name: self.of(name) for name in IMAGES}

    def of(self, name: str) -> ImageAlarm:
        """Return the alarm of an image."""
        text = self._invalid.get(name)
        return self._state if text is None else ImageAlarm("INVALID", text)

    def take(self, message: SinkMessage) -> dict[str, ImageAlarm]:
        """Take a message; return the alarms that it changes, by image."""
        match message:
            case RunOpened():
                self._begin(message.start.run_uid)
            case SessionStatus():
                # Also a run whose slices can never be made has begun.
                if message.run_uid:
                    self._begin(message.run_uid)
                severity = table.image_severity(message)
                self._state = ImageAlarm(severity, "" if severity == "NO_ALARM" else message.state)
                if not message.learning.ready:
                    self._invalid |= dict.fromkeys(LEARNED, message.learning.reason)
            case Update() if self._run_uid in ("", message.run_uid):
                self._invalid.pop(table.image_name(message), None)
        before, self._shown = self._shown, {name: self.of(name) for name in IMAGES}
        return {name: alarm for name, alarm in self._shown.items() if alarm != before[name]}

    def _begin(self, run_uid: str) -> None:
        if run_uid != self._run_uid:
            self._run_uid = run_uid
            self._invalid = dict.fromkeys(IMAGES, NO_IMAGE)
