"""Find the settings, and PVs on this machine; before anything imports ophyd."""

from bluesky_jit.beamline.environment import console_settings, loopback_epics

settings = console_settings()
loopback_epics(settings)
