"""A simulated beamline as processes: the IOCs and an embedded Tiled server, with everything in one data folder."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import numpy as np

from bluesky_jit.cli.processes import ChildProcess, free_ports, uninterrupted
from bluesky_jit.settings import Settings, load_settings
from bluesky_jit.settings_sections import GeometrySettings

READY_S = 60.0
API_KEY_VARIABLE = "TILED_SINGLE_USER_API_KEY"
PREFIX = "SIM:"
"""The IOC's default."""
PROFILE = "simulated"
"""Name by which Tiled and databroker find the server, in the folder `profiles`."""


class SimulatedBeamline:
    """Run the IOCs and Tiled on free loopback ports, and say in settings.toml where they are."""

    def __init__(
        self,
        directory: Path,
        *,
        ioc_options: tuple[str, ...] = (),
        parts: Collection[Literal["ioc", "tiled"]] = ("ioc", "tiled"),
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Choose ports and make names; parts: what is to run; settings: others for settings.toml, by section."""
        self.directory = directory.resolve()
        self.frames = self.directory / "frames"
        self.logs = self.directory / "logs"
        self.settings_file = self.directory / "settings.toml"
        self.profiles = self.directory / "profiles"
        ioc_ca, ioc_pva, ioc_pva_udp, jit_ca, jit_pva, tiled, publish, subscribe = free_ports(8)
        self._tiled_port = tiled
        key = secrets.token_hex(16)
        self._sections: dict[str, dict[str, Any]] = {
            "beamline": {"ca_port": ioc_ca, "pva_port": ioc_pva, "file_directory": str(self.frames)},
            "epics": {"ca_port": jit_ca, "pva_port": jit_pva},
            "tiled": {
                "uri": f"http://127.0.0.1:{tiled}",
                "api_key": key,
                "spill_directory": str(self.directory / "spill"),
            },
            "serve": {"publish_address": f"127.0.0.1:{publish}", "subscribe_address": f"127.0.0.1:{subscribe}"},
        }
        self._parts = parts
        if "tiled" not in parts:
            self._sections["tiled"]["uri"] = ""
        for section, values in (settings or {}).items():
            self._sections[section] = self._sections.get(section, {}) | dict(values)
        self._ioc_environment = {
            "EPICS_CAS_SERVER_PORT": str(ioc_ca),
            "EPICS_CA_SERVER_PORT": str(ioc_ca),
            "EPICS_PVAS_SERVER_PORT": str(ioc_pva),
            "EPICS_PVAS_BROADCAST_PORT": str(ioc_pva_udp),
        }
        self._ioc_options = ioc_options
        self._children: list[ChildProcess] = []

    @property
    def settings(self) -> Settings:
        return load_settings(self.settings_file)

    def __enter__(self) -> Self:
        uri = load_settings(self.settings_file).tiled.uri if self.settings_file.exists() else ""
        if uri and _answers(uri):
            raise RuntimeError(
                f"a simulated beamline is running in {self.directory}: end it, or give another folder with --data"
            )
        self.frames.mkdir(parents=True, exist_ok=True)
        self.profiles.mkdir(exist_ok=True)
        profile = {PROFILE: {"uri": self._sections["tiled"]["uri"]}}
        # JSON is YAML too.
        (self.profiles / f"{PROFILE}.yml").write_text(json.dumps(profile) + "\n")
        self._write_settings()
        try:
            ioc = self.ioc() if "ioc" in self._parts else None
            archive = self.archive() if "tiled" in self._parts else None
            if ioc is not None:
                described = json.loads(ioc.wait_until_ready(READY_S).removeprefix("ready"))
                self._sections["geometry"] = _geometry_settings(described)
            if archive is not None:
                archive.wait_until_ready(READY_S)
            self._write_settings()
        except BaseException:
            self.stop()
            # Nobody shall look for what is gone.
            self.settings_file.unlink(missing_ok=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def true_slices(self, grids: dict[str, Any], times_s: dict[str, float]) -> dict[str, np.ndarray]:
        """Ask the simulator for noise-free slices, float32 (nz, ny, nx) in 1/mm, at times in Unix seconds."""
        t0_s = float(self.read("PHANTOM:T0"))
        request = {
            "experiment": self.read("PHANTOM:Experiment_RBV"),
            "seed": int(self.read("PHANTOM:Seed_RBV")),
            "radius_mm": float(self.read("PHANTOM:RadiusMm_RBV")),
            "half_height_mm": float(self.read("PHANTOM:HalfHeightMm_RBV")),
            "slices": {name: {"grid": grids[name], "time_s": times_s[name] - t0_s} for name in grids},
        }
        asked, answer = self.directory / "truth-request.json", self.directory / "truth.npz"
        asked.write_text(json.dumps(request))
        subprocess.run([sys.executable, "-m", "sim_devices.truth", str(asked), str(answer)], check=True)
        with np.load(answer) as truth:
            return {name: truth[name] for name in grids}

    def read(self, name: str) -> Any:
        """Return the value of one of the simulator's PVs."""
        import epics

        value = epics.caget(PREFIX + name, timeout=5.0)
        if value is None:
            raise RuntimeError(f"{PREFIX}{name} does not answer: see {self.logs / 'ioc.log'}")
        return value

    def ioc(self) -> ChildProcess:
        """Start the IOCs; again after they have ended, for instance."""
        return self._start("ioc", ["sim_devices.ioc", "--directory", str(self.frames), *self._ioc_options])

    def archive(self) -> ChildProcess:
        """Start the Tiled server; again after it has ended, for instance."""
        arguments = [
            "sim_devices.archive",
            *("--directory", str(self.directory / "tiled")),
            *("--port", str(self._tiled_port)),
            *("--readable", str(self.frames)),
        ]
        return self._start("tiled", arguments)

    def serve(self) -> ChildProcess:
        """Start `bluesky-jit serve` beside the beamline."""
        return self._start("serve", ["bluesky_jit.cli", "serve", "--settings", str(self.settings_file)])

    def child(self, name: str) -> ChildProcess:
        """Return a process by its name: ioc, tiled or serve; the latest one if it was started again."""
        return next(child for child in reversed(self._children) if child.name == name)

    def lost(self) -> list[ChildProcess]:
        """Return the processes that have ended by themselves."""
        return [child for child in self._children if not child.running]

    def stop(self) -> None:
        """End the processes."""
        with uninterrupted():
            while self._children:
                self._children.pop().stop()

    def _start(self, name: str, arguments: list[str]) -> ChildProcess:
        log = self.logs / f"{name}.log"
        with uninterrupted():
            self._children.append(ChildProcess(name, arguments, log=log, environment=self._environment(name)))
        return self._children[-1]

    def _environment(self, name: str) -> dict[str, str]:
        shared = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "NUMBA_NUM_THREADS": "1"}
        # The key goes by the environment: everybody on the machine can read a command line.
        own = {"ioc": self._ioc_environment, "tiled": {API_KEY_VARIABLE: self._sections["tiled"]["api_key"]}}
        return shared | own.get(name, {})

    def _write_settings(self) -> None:
        lines = ["# Written by bluesky-jit; where the parts of this simulated beamline are."]
        for section, values in self._sections.items():
            lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        # It holds the Tiled key, and at no time may others read it.
        self.settings_file.touch(mode=0o600)
        self.settings_file.chmod(0o600)
        self.settings_file.write_text("\n".join(lines) + "\n")


def _geometry_settings(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what the IOC says of its set-up as settings: the detector's size comes with the frames."""
    known = {field.name for field in fields(GeometrySettings)}
    return {key: value for key, value in metadata.items() if key in known}


def end_ca_client() -> None:
    """End this process's Channel Access for good, before its servers go: it would complain of each."""
    if "epics" in sys.modules:
        sys.modules["epics"].ca.finalize_libca()


def _answers(uri: str) -> bool:
    """Tell whether something listens at an address on this machine."""
    address = urlsplit(uri)
    try:
        socket.create_connection((address.hostname, address.port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def require_sim_devices() -> None:
    """Say what is missing when the simulator is not installed."""
    from importlib.util import find_spec

    if find_spec("sim_devices") is None:
        sys.exit(
            "the simulated devices are not installed: install the bluesky-jit wheel, which brings sim_devices along"
        )
