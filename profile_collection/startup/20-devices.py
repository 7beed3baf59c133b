"""The devices; they connect by themselves whenever their IOCs are there."""

from bluesky_jit.beamline.console import make_devices

devices = make_devices(settings)
camera, stage, shutter, sample = devices.arguments
