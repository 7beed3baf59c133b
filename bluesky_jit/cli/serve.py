"""`bluesky-jit serve`: the session in a process of its own, fed by bluesky's documents over 0MQ."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bluesky_jit.cli.ending import Ending
from bluesky_jit.settings import Settings
from bluesky_jit.settings_sections import ServeSettings

if TYPE_CHECKING:
    from bluesky_jit.intake.catch_up import CatchUp
    from bluesky_jit.session.wiring import Session


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    with Ending() as ending:
        _serve(settings, ending)
    sys.stdout.write("ended\n")
    sys.stdout.flush()


def _serve(settings: Settings, ending: Ending) -> None:
    from bluesky_jit.intake.callback import JITCallback
    from bluesky_jit.intake.hub import DocumentHub
    from bluesky_jit.session.kafka_stage import beside_kafka
    from bluesky_jit.session.wiring import Session

    # First, so that a second session on the same addresses ends before it has served anything.
    with DocumentHub(settings.serve) as hub:
        if ending.wanted:
            return
        with Session(settings) as session:
            if ending.wanted:
                return
            with (
                _catching_up(settings) as catch_up,
                beside_kafka(settings.serve, JITCallback(session, catch_up), session.report) as receive,
            ):
                # What is loaded stays: between runs nobody looks through it for what could be freed.
                gc.freeze()
                sys.stdout.write(f"ready: documents at {_heard(settings.serve)}, {_served(session)}\n")
                sys.stdout.flush()
                for name, document in hub.documents(ending):
                    receive(name, document)


@contextmanager
def _catching_up(settings: Settings) -> Iterator[CatchUp | None]:
    """Give what asks Tiled for runs that had begun before this process did, if there is a Tiled."""
    if not settings.tiled.uri:
        yield None
        return
    from bluesky_jit.intake.catch_up import CatchUp

    with CatchUp(settings.tiled) as catch_up:
        yield catch_up


def _heard(serve: ServeSettings) -> str:
    """Say where documents are heard, and whose."""
    keys = f" of those with keys of {serve.curve_folder}" if serve.curve_folder else ""
    topics = f" and from Kafka at {serve.kafka_servers}" if serve.kafka_servers else ""
    return f"{serve.publish_address}{keys}{topics}"


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
