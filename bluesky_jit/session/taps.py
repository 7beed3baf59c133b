"""Follow the pvAccess images that runs name, so that frames come the moment they are made."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from bluesky_jit.messages import InlineFrames, Problem, RunMessage, RunStart, RunStop
from bluesky_jit.settings import Settings

if TYPE_CHECKING:
    from p4p.client.thread import Context

    from bluesky_jit.intake.pva_tap import PVATap

logger = logging.getLogger(__name__)

OFF = "off"


class Taps:
    """Open a tap for each PV that a run names, and give it the runs. One stays open until the session ends."""

    def __init__(
        self, settings: Settings, submit: Callable[[InlineFrames], None], report: Callable[[Problem], None]
    ) -> None:
        self._settings = settings
        self._submit = submit
        self._report = report
        self._context: Context | None = None
        self._taps: dict[str, PVATap] = {}
        self._changing = threading.Lock()
        """Runs begin and end where their documents come, and end where intake gives them up."""

    def start(self) -> None:
        """Make ready for the PVs that runs name, and connect to the one that the settings name, if any."""
        pv = self._settings.intake.pva
        if pv == OFF:
            return
        # Half a second, for which a RunEngine would wait when it submits the first run that names a PV.
        import_module("bluesky_jit.intake.pva_tap")
        if pv:
            with self._changing:
                self._follow(pv, lambda: self._tap(pv))

    def hear(self, message: RunMessage) -> None:
        """Take note of a run that begins or ends; never raise."""
        if isinstance(message, RunStart):
            pv = self._settings.intake.pva or str(message.tomo.get("pva") or "")
            # A frame of now must not be taken for one of the streams that are still made up for: documents bring all.
            if pv in ("", OFF) or message.caught_up:
                return
            with self._changing:
                self._follow(pv, lambda: self._tap(pv).open_run(message), run_uid=message.run_uid)
        elif isinstance(message, RunStop):
            with self._changing:
                for tap in self._taps.values():
                    tap.end_run(message.run_uid)

    def close(self) -> None:
        with self._changing:
            while self._taps:
                self._taps.popitem()[1].close()
            if self._context is not None:
                self._context.close()
                self._context = None

    def _follow(self, pv: str, begin: Callable[[], object], *, run_uid: str = "") -> None:
        try:
            begin()
        except Exception as error:
            # Whatever pvAccess lacks on this machine, files and events have the frames.
            logger.exception("%s cannot be followed", pv)
            self._report(Problem(text=f"{pv} cannot be followed: {error}", run_uid=run_uid))

    def _tap(self, pv: str) -> PVATap:
        from p4p.client.thread import Context

        from bluesky_jit.intake.pva_tap import PVATap, client_conf

        if self._context is None:
            # Only where a PV is wanted: it goes on looking for its servers.
            self._context = Context("pva", conf=client_conf(self._settings), nt=False)
        if pv not in self._taps:
            intake = self._settings.intake
            self._taps[pv] = PVATap(
                pv,
                self._context,
                self._submit,
                report=self._report,
                angle=intake.pva_angle,
                angle_unit=intake.angle_unit,
            )
        return self._taps[pv]
