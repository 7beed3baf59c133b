"""`bluesky-jit serve`: the session in a process of its own, fed by bluesky's documents over 0MQ."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from bluesky_jit.settings import Settings

if TYPE_CHECKING:
    from bluesky_jit.session.wiring import Session


def serve(settings: Settings) -> None:
    """Serve until interrupted."""
    from bluesky_jit.intake.callback import JITCallback
    from bluesky_jit.intake.wire import documents, start_proxy
    from bluesky_jit.session.wiring import Session

    signal.signal(signal.SIGTERM, _interrupt)
    addresses = settings.serve
    try:
        # First, so that a second session on the same addresses ends before it has served anything.
        start_proxy(addresses.publish_address, addresses.subscribe_address)
        with Session(settings) as session:
            callback = JITCallback(session)
            sys.stdout.write(f"ready: documents at {addresses.publish_address}, {_served(session)}\n")
            sys.stdout.flush()
            for name, document in documents(addresses.subscribe_address):
                callback(name, document)
    except KeyboardInterrupt:
        sys.stdout.write("ended\n")


def _served(session: Session) -> str:
    """Say where the PVs are: not where the settings say, when something else is there."""
    epics = session.settings.epics
    if not epics.enabled:
        return "no PVs (epics.enabled is off)"
    from bluesky_jit.publish.ca import CAServer
    from bluesky_jit.publish.pva import PVAServer

    kinds = {CAServer: "CA", PVAServer: "PVA"}
    ports = [f"{sink.port} ({kinds[type(sink)]})" for sink in session.sinks if isinstance(sink, CAServer | PVAServer)]
    return f"PVs {epics.prefix}* on ports {' and '.join(ports)}"


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
