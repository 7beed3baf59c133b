"""Scan with a RunEngine as a console's, in a thread, so that the main thread can show how it goes."""

from __future__ import annotations

import logging
import os
import threading

from bluesky_jit.cli.processes import own_environment
from bluesky_jit.cli.simulated import SimulatedBeamline

ANGLES_PER_TURN = 120
EXPOSURE_S = 0.03
"""33 frames a second and 3.6 s a turn: comfortable for two cores that also render the sample."""
DARKS = FLATS = 10
CONNECT_S = 10.0
STOP_S = 15.0


class Scan:
    """Run one tomo_scan, recorded in Tiled and forwarded to the session."""

    def __init__(self, beamline: SimulatedBeamline, turns: int) -> None:
        from bluesky_jit.beamline.environment import loopback_epics

        settings = beamline.settings
        # Whatever network the user has set: the devices are those of this simulated beamline.
        for name in set(os.environ) - set(own_environment()):
            del os.environ[name]
        loopback_epics(settings)
        from bluesky import RunEngine

        from bluesky_jit.beamline.console import make_devices, missing_devices, subscribe_jit, subscribe_tiled
        from bluesky_jit.beamline.plans import tomo_scan

        self.error: BaseException | None = None
        self.uid = ""
        self.turns = turns
        self._engine = RunEngine({}, context_managers=[])
        devices = make_devices(settings)
        problems = [
            missing_devices(devices, timeout_s=CONNECT_S),
            subscribe_jit(self._engine, settings, timeout_s=CONNECT_S),
        ]
        self._recorder, _, missing_tiled = subscribe_tiled(self._engine, settings)
        for problem in filter(None, [*problems, missing_tiled]):
            raise RuntimeError(problem)
        self._plan = tomo_scan(
            *devices.arguments,
            turns=turns,
            angles_per_turn=ANGLES_PER_TURN,
            exposure_s=EXPOSURE_S,
            darks=DARKS,
            flats=FLATS,
            geometry=settings.geometry,
        )
        self._thread = threading.Thread(target=self._run, name="scan", daemon=True)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Abort a scan that still runs, let Tiled have what waits, and end the engine's own thread."""
        if self.running:
            # It would show the abort that we ask for as a failure of the plan.
            logging.getLogger("bluesky").setLevel(logging.CRITICAL)
            self._engine.abort("the demo was ended")
            self._thread.join(STOP_S)
        if self._recorder is not None:
            self._recorder.shutdown()
        self._engine.loop.call_soon_threadsafe(self._engine.loop.stop)

    def _run(self) -> None:
        try:
            result = self._engine(self._plan)
            self.uid = result[0] if isinstance(result, tuple) else result.run_start_uids[0]
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            self.error = error
