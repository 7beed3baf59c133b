"""`bluesky-jit doctor`: is everything that live slices need as it should be, and if not, what to do?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bluesky_jit.beamline.environment import loopback_epics
from bluesky_jit.doctor import configuration, machine
from bluesky_jit.doctor.channels import Channels
from bluesky_jit.doctor.finding import Check, Finding, Verdict, examine
from bluesky_jit.settings import Settings

STYLES: Mapping[Verdict, str] = {"fine": "green", "warning": "yellow", "problem": "bold red"}


def doctor(file: Path | None, changes: Mapping[str, Mapping[str, Any]], *, as_json: bool = False) -> int:
    """Look at everything, show what was found; return 1 when something must be done, else 0."""
    settings, found = configuration.read(file, os.environ, changes)
    # Before anything imports an EPICS library.
    loopback_epics(settings)
    # Who does not answer is told here, in our words.
    os.environ.setdefault("PVXS_LOG", "*=CRIT")
    found = [*found, *examine(checks(settings))]
    if as_json:
        sys.stdout.write(json.dumps([asdict(each) for each in found], indent=1, ensure_ascii=False) + "\n")
    else:
        show(found, Console(highlight=False))
    return int(any(each.verdict == "problem" for each in found))


def checks(settings: Settings) -> list[Check]:
    """Return what is looked at, in the order in which it is shown."""
    channels = Channels(settings)
    return [
        Check(subject="geometry", look=partial(configuration.geometry, settings)),
        Check(subject="devices", look=partial(_devices, settings, channels)),
        Check(subject="pvAccess", look=partial(_images, settings)),
        Check(subject="session", look=partial(_running, settings, channels)),
        Check(subject="Kafka", look=partial(_brokers, settings)),
        Check(subject="Tiled", look=partial(_records, settings)),
        Check(subject="folders", look=partial(_folders, settings)),
        Check(subject="threads", look=lambda: machine.threads(settings, os.environ, machine.cores())),
        Check(subject="hardware", look=partial(machine.hardware, settings), limit_s=machine.HARDWARE_S + 1.0),
        Check(subject="packages", look=machine.packages),
    ]


# The EPICS libraries, HDF5 and Tiled's client are loaded by the checks themselves: one that cannot be loaded is a line.


def _devices(settings: Settings, channels: Channels) -> Sequence[Finding]:
    from bluesky_jit.doctor.devices import look

    return look(settings, channels)


def _images(settings: Settings) -> Sequence[Finding]:
    from bluesky_jit.doctor.images import look

    return look(settings)


def _running(settings: Settings, channels: Channels) -> Sequence[Finding]:
    from bluesky_jit.doctor.running import look

    return look(settings, channels)


def _brokers(settings: Settings) -> Sequence[Finding]:
    from bluesky_jit.doctor.running import brokers

    return brokers(settings)


def _records(settings: Settings) -> Sequence[Finding]:
    from bluesky_jit.doctor.records import look

    return look(settings)


def _folders(settings: Settings) -> Sequence[Finding]:
    from bluesky_jit.doctor.files import own_folders

    return own_folders(settings)


def show(found: Sequence[Finding], screen: Console) -> None:
    """Print a line for each finding, however long, and one that sums up."""
    width = max(len(each.subject) for each in found)
    for each in found:
        line = Text.assemble((f"{each.verdict:<7}", STYLES[each.verdict]), f"  {each.subject:<{width}}  {each.text}")
        screen.print(line, soft_wrap=True)
    counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in STYLES}
    if counts["problem"]:
        counted = f"{_number(counts['problem'], 'problem')} and {_number(counts['warning'], 'warning')}"
        what = f"{counted}: see to the problems first"
    elif counts["warning"]:
        what = f"nothing must be done; {_number(counts['warning'], 'warning')} could make it better"
    else:
        what = "all is fine"
    screen.print(f"\n{what}", soft_wrap=True, markup=False)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
