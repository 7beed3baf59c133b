"""Which run the servers show, when several go on at a time."""

from __future__ import annotations

from bluesky_jit.messages import RunOpened, RunStop, SessionStatus, SinkMessage, Update


class OnShow:
    """Follow which run is on show; what comes of the others is for their records only."""

    def __init__(self) -> None:
        self._uid = ""
        self._opened: dict[str, RunOpened] = {}
        """Runs that go on, and the one on show."""
        self._ended: set[str] = set()

    @property
    def opened(self) -> RunOpened | None:
        """Return how the run on show was opened, or None when it never was."""
        return self._opened.get(self._uid)

    def takes(self, message: SinkMessage) -> bool:
        """Take a message in; return whether people are to see it."""
        match message:
            case RunOpened():
                self._opened[message.start.run_uid] = message
                if message.on_show:
                    self._show(message.start.run_uid)
                return message.on_show
            case SessionStatus():
                if message.on_show and message.run_uid:
                    self._show(message.run_uid)
                return message.on_show
            case Update():
                return self._uid in ("", message.run_uid)
            case RunStop():
                self._ended.add(message.run_uid)
                self._show(self._uid)
                return False

    def _show(self, uid: str) -> None:
        self._uid = uid
        for ended in self._ended - {uid}:
            self._opened.pop(ended, None)
        self._ended &= {uid}
