"""`bluesky-jit replay`: a real scan, a running service and Tiled, as users have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import zarr
from bluesky_tiled_plugins import TiledWriter
from event_model import compose_run
from p4p.client.thread import Context
from scipy.ndimage import gaussian_filter
from servers import JIT_CA_PORT, LOOPBACK, Server, free_ports, wait_for
from simulated_run import ANGLES, PHANTOM, frames
from stored_scans import write_nxtomo
from tiled.client import from_uri
from tiled.server import SimpleTiledServer

from bluesky_jit.archive import raw_catalog
from bluesky_jit.cli.reconstruct import reconstruct_source
from bluesky_jit.cli.replay import Play, replay_source
from bluesky_jit.intake.recorded import recorded_scan
from bluesky_jit.results import results
from bluesky_jit.settings import Settings, load_settings
from bluesky_jit.tomo.grid import Grid

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

REAL = Path(__file__).parents[3] / "shared" / "data" / "tooth.h5"
KEY = "secret"
ENDS_S = 200.0


def run_command(*arguments: str) -> str:
    """Run `bluesky-jit …` to its end, and return what it says on stdout."""
    ours = ("EPICS_", "BLUESKY_JIT_", "TILED_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_jit.cli", *arguments],
        env=clean,
        capture_output=True,
        text=True,
        timeout=ENDS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not REAL.exists(), reason="the folder of real scans is not here")
def test_the_tooth_is_shown_with_the_axis_that_it_has_by_itself(tmp_path: Path) -> None:
    """TomoPy's own example has it at column 296.0."""
    run_command("replay", str(REAL), "--output", str(tmp_path), "--learn", "2")
    figures = json.loads((tmp_path / "figures.json").read_text())
    counts = {name: figures["frames"][name] for name in ("projections", "flats", "darks", "lost")}
    assert counts == {"projections": 181, "flats": 10, "darks": 10, "lost": 0}
    assert figures["axis"]["column"] == pytest.approx(296.0, abs=0.5)
    assert figures["axis"]["confidence"] > 0.8
    # Denoised only if the network was ready; how soon it is depends on the machine.
    assert figures["learning"]["ready"] or not figures["denoised"]
    picture = matplotlib.image.imread(tmp_path / figures["picture"])
    assert picture.shape[1] > 1000


# ── Tiled ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A Tiled server."""

    settings: Settings
    client: Any

    def load(self, defaults: Any = None) -> Settings:
        """Load settings as a command line does, with nobody's files and environment."""
        plain = {"enabled": False}
        return load_settings(environment={}, defaults=defaults, tiled=self.settings.tiled, learn=plain)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nxtomo(tmp_path_factory.mktemp("scan") / "scan.nxs", photons=8000, pixel_mm=1.0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with SimpleTiledServer(tmp_path_factory.mktemp("tiled"), api_key=KEY) as server:
        uri = f"http://{LOOPBACK}:{server.port}"
        client = from_uri(uri, api_key=KEY)
        spill = str(tmp_path_factory.mktemp("spill"))
        yield Archive(
            settings=Settings().changed({"tiled": {"uri": uri, "api_key": KEY, "spill_directory": spill}}),
            client=client,
        )
        client.context.close()


@pytest.fixture(scope="module")
def uid(archive: Archive, scan: Path) -> str:
    """Play the scan into a Tiled server named by its address, with the key from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILED_API_KEY", KEY)
        replay_source(str(scan), load_plain, Play(to=archive.settings.tiled.uri))
    return raw_catalog(archive.client)[-1].metadata["start"]["uid"]


def load_plain(defaults: Any = None) -> Settings:
    return load_settings(environment={}, defaults=defaults)


def test_a_scan_played_into_tiled_is_reconstructed_like_any_run(archive: Archive, uid: str, tmp_path: Path) -> None:
    reconstruct_source(uid[:8], tmp_path / "out.zarr", archive.load)
    volume = zarr.open_array(tmp_path / "out.zarr", mode="r")
    grid = Grid(**volume.attrs["grid"])
    middle = grid.shape[0] // 2
    truth = PHANTOM.attenuation(grid, 0.0, oversample=2)[middle]
    found, truth = (gaussian_filter(image, 1.5) for image in (np.asarray(volume)[middle], truth))
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.95


def test_a_recorded_run_is_played_and_its_results_are_found_beside_it(
    archive: Archive, uid: str, tmp_path: Path
) -> None:
    replay_source(uid[:8], archive.load, Play(), output=tmp_path)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["run_uid"], figures["frames"]["projections"], figures["frames"]["lost"]) == (uid, ANGLES, 0)
    assert figures["layout"] == "Tiled"
    wait_for(lambda: "XY" in results(uid, archive.client), what="the linked run")
    assert results(uid, archive.client)["XY"]["raw"].shape[1:] == (64, 64)


def test_a_run_whose_stage_was_monitored_has_the_stages_angles(archive: Archive) -> None:
    """Its plan is foreign: no `tomo` block, and no angle beside the frames."""
    n = 20
    run = compose_run(metadata={"scan_id": 4711, "plan_name": "tomo_at_constant_speed"})
    writer = TiledWriter(raw_catalog(archive.client), batch_size=1000)
    writer("start", run.start_doc)
    number = {"source": "PV", "dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "deg"}
    picture = {"source": "PV", "dtype": "array", "dtype_numpy": "<u2", "shape": [4, 5]}
    images = run.compose_descriptor(name="projections", data_keys={"camera_image": picture})
    monitor = run.compose_descriptor(name="stage_monitor", data_keys={"stage": number})
    writer("descriptor", images.descriptor_doc)
    writer("descriptor", monitor.descriptor_doc)
    began_s = 1.79e9
    for place in range(n):
        data = {"camera_image": np.full((4, 5), 100 + place, np.uint16)}
        stamps = {"camera_image": began_s + 0.25 + 0.1 * place}
        writer("event", images.compose_event(data=data, timestamps=stamps, time=stamps["camera_image"]))
    for place in range(6):
        stamps = {"stage": began_s + 0.5 * place}
        writer("event", monitor.compose_event(data={"stage": 30.0 * place}, timestamps=stamps, time=stamps["stage"]))
    writer("stop", run.compose_stop())
    with recorded_scan("4711", archive.settings) as scan:
        # 60° in a second, from the sample at 0 s on.
        assert np.rad2deg(scan.angles_rad) == pytest.approx(15 + 6 * np.arange(n))
        [block] = scan.blocks(kinds=("projection",))
    assert block.angle_source == "monitored stream"


# ── a running service ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("ca_repeater")
def test_a_service_takes_all_frames_at_full_speed(scan: Path) -> None:
    pva, publish, subscribe = free_ports(3)
    values = {
        "epics.prefix": f"REPLAY{os.getpid()}:",
        "epics.ca_port": JIT_CA_PORT,
        "epics.pva_port": pva,
        "serve.publish_address": f"{LOOPBACK}:{publish}",
        "serve.subscribe_address": f"{LOOPBACK}:{subscribe}",
        "learn.enabled": "no",
        # Fewer than the frames.
        "intake.queue_frames": 40,
    }
    options = [part for place, value in values.items() for part in ("--set", f"{place}={value}")]
    server = Server("bluesky_jit.cli", "serve", *options)
    server.wait_ready()
    said = run_command("replay", str(scan), "--to", "serve", *options)
    uid = said.split()[-1]
    conf = {"EPICS_PVA_NAME_SERVERS": f"{LOOPBACK}:{pva}", "EPICS_PVA_AUTO_ADDR_LIST": "NO"}
    with Context("pva", conf=conf, useenv=False, nt=False) as context:

        def value(name: str) -> Any:
            return context.get(f"{values['epics.prefix']}{name}", timeout=20.0)["value"]

        wait_for(lambda: (value("RunUid"), value("ReconStatus")) == (uid, "idle"), what="the end of the run")
        assert (value("FramesReceived"), value("FramesLost")) == (ANGLES + 45, 0)
    assert len(frames()["darks"]) + 2 * len(frames()["flats"]) == 45
    assert server.stop() == 0
