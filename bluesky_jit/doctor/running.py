"""The session itself: whether one runs behind the PVs, whether it lives, and whether documents reach one."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping

from bluesky_jit.doctor.channels import Channels, Reading
from bluesky_jit.doctor.finding import Finding, fine, problem, warning
from bluesky_jit.intake.wire import DocumentPublisher
from bluesky_jit.publish.table import SILENCE_S
from bluesky_jit.settings import Settings

SESSION, DOCUMENTS = "session", "documents"
LISTENER_S = 1.0
"""After the heartbeat has been looked for, which takes its time where there is none."""
BROKER_S = 4.0
CONNECT_S = 2.0


def look(settings: Settings, channels: Channels, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Look for a session's heartbeat, and for whoever takes documents."""
    # It waits for the others while the heartbeat is looked for.
    publisher = _publisher(settings)
    try:
        found = channels.read()
        lives = settings.epics.prefix + "ServerRunning" in found
        taken = publisher if isinstance(publisher, Finding) else documents(settings, publisher, lives=lives)
    finally:
        if isinstance(publisher, DocumentPublisher):
            publisher.close(0.0)
    return [session(settings, found, clock()), taken]


def _publisher(settings: Settings) -> DocumentPublisher | Finding:
    try:
        return DocumentPublisher(settings.serve.publish_address, curve_folder=settings.serve.curve_folder)
    except (ValueError, OSError) as error:
        return problem(DOCUMENTS, str(error))


def session(settings: Settings, found: Mapping[str, Reading], now_s: float) -> Finding:
    """Judge a session by its heartbeat and by what it says."""
    prefix = settings.epics.prefix
    if not settings.epics.enabled:
        return warning(SESSION, "epics.enabled is off: there are no PVs to see slices by, or to know that it lives")
    running = found.get(prefix + "ServerRunning")
    if running is None:
        return _none(settings)
    state, message = (
        found[prefix + name].text if prefix + name in found else "" for name in ("ReconStatus", "Message")
    )
    said = f"; {prefix}Message: {message}" if message else ""
    silent_s = now_s - running.time_s
    if not int(running.value) or state == "failed":
        return problem(
            SESSION, f"{prefix}* is served, but the session has failed: look at its log and restart it{said}"
        )
    if silent_s > SILENCE_S:
        return problem(
            SESSION,
            f"the heartbeat {prefix}ServerRunning is {silent_s:.0f} s old: the session hangs, or its machine's clock "
            "is behind: look at its log and restart it",
        )
    run = found[prefix + "RunUid"].text if prefix + "RunUid" in found else ""
    text = f"{prefix}* is served and lives: {state}{f', run {run[:8]}' if run else ''}{said}"
    return warning(SESSION, text) if message else fine(SESSION, text)


def _none(settings: Settings) -> Finding:
    epics = settings.epics
    taken = [
        f"{kind} port {port}"
        for kind, port in (("CA", epics.ca_port), ("PVA", epics.pva_port))
        if _is_taken("127.0.0.1" if epics.interface == "0.0.0.0" else epics.interface, port)
    ]
    text = f"nobody serves {epics.prefix}*: no session runs"
    if taken:
        return warning(
            SESSION,
            f"{text}, and something else has {' and '.join(taken)}: a session takes other ports, where clients do not "
            "look; set epics.ca_port and epics.pva_port",
        )
    return fine(SESSION, f"{text}, and its ports are free")


def _is_taken(host: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(CONNECT_S)
        return client.connect_ex((host, port)) == 0


def documents(settings: Settings, publisher: DocumentPublisher, *, lives: bool) -> Finding:
    """Tell whether anybody takes documents; lives: whether a session shows its PVs."""
    place = settings.serve.publish_address
    if publisher.wait_for_listener(LISTENER_S):
        return fine(DOCUMENTS, f"taken at {place}")
    host, _, port = place.rpartition(":")
    if port.isdecimal() and _is_taken(host, int(port)):
        return problem(
            DOCUMENTS,
            f"something listens at {place} but takes no documents: is it `bluesky-jit serve`, and are its keys these "
            f"(serve.curve_folder is {settings.serve.curve_folder or 'empty'})?",
        )
    if lives:
        text = f"nobody listens at {place}; the session runs in a console's own process, or has another address"
        return fine(DOCUMENTS, text)
    return problem(DOCUMENTS, f"nobody listens at {place}: start `bluesky-jit serve` with the same settings")


def brokers(settings: Settings) -> list[Finding]:
    """Tell whether Kafka's brokers answer and have the topics."""
    if not settings.serve.kafka_servers:
        return []
    from bluesky_jit.intake.kafka import missing_topics

    servers = settings.serve.kafka_servers
    try:
        missing = missing_topics(settings.serve, timeout_s=BROKER_S)
    except (ValueError, OSError) as error:
        return [problem("Kafka", str(error))]
    if missing:
        return [problem("Kafka", f"{servers} has no topic {', '.join(missing)}: correct serve.kafka_topics")]
    return [fine("Kafka", f"{servers} has {', '.join(settings.serve.kafka_topics)}")]
