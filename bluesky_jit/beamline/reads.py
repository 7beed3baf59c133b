"""Reads over Channel Access that nobody will answer any more, so that devices can be used after their IOC was away."""

from __future__ import annotations

import time

from ophyd import Device, get_cl
from ophyd.signal import EpicsSignalBase

ANSWER_S = 10.0
"""How long our devices wait for an answer: within ophyd's own 2 s a busy IOC may not find the time, in mid-scan."""
PATIENCE_S = 2.0
"""How long a read that another thread began may still be answered before it counts as lost."""
POLL_S = 0.01


def forget_unanswered_reads(*devices: Device, patience_s: float = PATIENCE_S) -> None:
    """Let the devices' PVs be read again when the answer to an earlier read was lost with its circuit.

    pyepics notes a read as pending before it hands it to libca. In the moment between the end of a circuit and its
    notice, libca refuses: no answer ever comes, and every later read of that PV waits in vain for the first one.
    caproto, ophyd's other control layer, knows its reads one by one.
    """
    if get_cl().name != "pyepics":
        return
    # Only where it is ophyd's control layer is it sure to be installed.
    from epics import ca

    ca.use_initial_context()
    deadline = time.monotonic() + patience_s
    entries = [entry for name in _pv_names(devices) if (entry := ca.get_cache(name)) is not None]
    for entry in entries:
        for kind in list(entry.get_results):
            # Another thread's read may be on its way.
            while entry.get_results[kind][0] is ca.GET_PENDING and time.monotonic() < deadline:
                ca.poll(evt=POLL_S)
            with entry.lock:
                if entry.get_results[kind][0] is ca.GET_PENDING:
                    del entry.get_results[kind]


def _pv_names(devices: tuple[Device, ...]) -> set[str]:
    """Return the PVs of all signals that exist so far."""
    signals = [signal for device in devices for _, signal in device.get_instantiated_signals()]
    return {
        str(name)
        for signal in signals
        if isinstance(signal, EpicsSignalBase)
        for name in (signal.pvname, getattr(signal, "setpoint_pvname", signal.pvname))
    }
