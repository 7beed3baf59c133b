"""Plans, with this beamline's devices and geometry filled in."""

from bluesky import plan_stubs as bps
from bluesky.plans import count

from bluesky_jit.beamline import plans
from bluesky_jit.beamline.console import bound

tomo_scan = bound(plans.tomo_scan, *devices.arguments, geometry=settings.geometry)
tomo_step_scan = bound(plans.tomo_step_scan, *devices.arguments, geometry=settings.geometry)
