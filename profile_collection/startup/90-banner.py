"""Say what to type, and what is missing."""

from bluesky_jit.beamline.console import missing_devices, show_banner

show_banner([missing_devices(devices), catalog_problem, jit_problem])
