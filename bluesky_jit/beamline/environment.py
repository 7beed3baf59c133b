"""Which settings a console uses, and where EPICS looks for PVs: needed before ophyd, caproto or p4p are imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from bluesky_jit.settings import ENVIRONMENT_PREFIX, Settings, load_settings

SIMULATED_SETTINGS = Path("jit-data/settings.toml")
"""What `bluesky-jit sim` writes, in the folder where it was started."""
LOOPBACK = "127.0.0.1"
MAX_ARRAY_BYTES = 20_000_000


def settings_file(folder: Path | None = None) -> Path | None:
    """Return the settings file of a beamline simulated in this folder, unless BLUESKY_JIT_SETTINGS names another."""
    simulated = (folder or Path.cwd()) / SIMULATED_SETTINGS
    return simulated if ENVIRONMENT_PREFIX + "SETTINGS" not in os.environ and simulated.is_file() else None


def console_settings(folder: Path | None = None) -> Settings:
    """Return the settings of the file that BLUESKY_JIT_SETTINGS names, or of a beamline simulated in this folder."""
    return load_settings(settings_file(folder))


def loopback_epics(settings: Settings, environment: MutableMapping[str, str] | None = None) -> None:
    """Look for PVs on this machine only, where the settings say; leave alone what the user has set."""
    environment = os.environ if environment is None else environment
    beamline, jit = settings.beamline, settings.epics
    searches = (
        {
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_ADDR_LIST": _addresses(beamline.ca_port, jit.ca_port),
        },
        {
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_ADDR_LIST": LOOPBACK,
            "EPICS_PVA_NAME_SERVERS": _addresses(beamline.pva_port, jit.pva_port),
        },
    )
    for search in searches:
        # A list that is half the user's and half ours would find the PVs of neither.
        if environment.keys().isdisjoint(search):
            environment.update(search)
    environment.setdefault("EPICS_CA_MAX_ARRAY_BYTES", str(MAX_ARRAY_BYTES))


def _addresses(*ports: int) -> str:
    return " ".join(f"{LOOPBACK}:{port}" for port in dict.fromkeys(ports))
