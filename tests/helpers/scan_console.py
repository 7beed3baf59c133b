"""A console without a terminal: one line of JSON in for each tomo_scan, one line out for how it ended.

With "inside" the scan is done inside another run of that plan name, as adaptive plans do.

Started by tests as a process of its own, with BLUESKY_JIT_SETTINGS. Ctrl-C is what it is at a console.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

from bluesky_jit.beamline.environment import loopback_epics
from bluesky_jit.settings import load_settings

SETTINGS = load_settings()
loopback_epics(SETTINGS)

from bluesky import RunEngine  # noqa: E402
from bluesky import plan_stubs as bps  # noqa: E402
from bluesky.preprocessors import set_run_key_wrapper  # noqa: E402
from bluesky.utils import RunEngineInterrupted  # noqa: E402

from bluesky_jit.beamline.console import Devices, make_devices, missing_devices, subscribe_jit  # noqa: E402
from bluesky_jit.beamline.plans import tomo_scan  # noqa: E402

WAIT_S = 60.0
"""How long a session or an IOC may take to answer on a busy machine."""


def say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def plan(devices: Devices, *, inside: str = "", **scan: Any) -> Iterator[Any]:
    """Scan; inside another run, which has a name and no frames, when it is given."""
    tomography = tomo_scan(*devices.arguments, geometry=SETTINGS.geometry, **scan)
    if not inside:
        return (yield from tomography)
    yield from bps.open_run({"plan_name": inside})
    yield from set_run_key_wrapper(tomography, "inner")
    yield from bps.close_run()


def main() -> None:
    # The engine has a handler of its own during a scan; between scans Ctrl-C ends nothing.
    signal.signal(signal.SIGINT, lambda *_: None)
    engine = RunEngine({})
    ends: list[dict[str, Any]] = []
    engine.subscribe(lambda _, stop: ends.append(stop), "stop")
    devices = make_devices(SETTINGS)
    say(missing=subscribe_jit(engine, SETTINGS, WAIT_S))
    for line in sys.stdin:
        if missing := missing_devices(devices, WAIT_S):
            say(error=missing)
            continue
        ends.clear()
        error = ""
        try:
            engine(plan(devices, **json.loads(line)))
        except RunEngineInterrupted as interruption:
            error = f"{type(interruption).__name__}"
            if engine.state == "paused":
                engine.abort("the sample fell")
        except Exception as failure:  # noqa: BLE001 - told to the test
            error = f"{type(failure).__name__}: {failure}"
        stop = ends[0] if ends else {}
        say(uid=stop.get("run_start", ""), status=stop.get("exit_status", ""), reason=stop.get("reason"), error=error)


main()
