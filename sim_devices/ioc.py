"""Run the simulated beamline: camera, stage, shutter, faults and phantom in one EPICS server process.

Ports are set by the usual EPICS environment: EPICS_CAS_SERVER_PORT, EPICS_CAS_INTF_ADDR_LIST, EPICS_PVAS_SERVER_PORT,
EPICS_PVAS_BROADCAST_PORT, EPICS_PVAS_INTF_ADDR_LIST. Everything is on loopback unless they say otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path

LOOPBACK = "127.0.0.1"
# caproto and p4p read the environment when they are imported.
os.environ.setdefault("EPICS_CAS_INTF_ADDR_LIST", LOOPBACK)
os.environ.setdefault("EPICS_CAS_BEACON_ADDR_LIST", LOOPBACK)
os.environ.setdefault("EPICS_CAS_AUTO_BEACON_ADDR_LIST", "NO")
os.environ.setdefault("EPICS_PVAS_INTF_ADDR_LIST", LOOPBACK)
os.environ.setdefault("EPICS_PVAS_BEACON_ADDR_LIST", LOOPBACK)
os.environ.setdefault("EPICS_PVAS_AUTO_BEACON_ADDR_LIST", "NO")

from caproto.server import AsyncLibraryLayer  # noqa: E402

from bluesky_jit.tomo.geometry import ConeGeometry, Geometry, ParallelGeometry  # noqa: E402
from sim_devices.detector import Camera  # noqa: E402
from sim_devices.faults import Faults  # noqa: E402
from sim_devices.hdf5_plugin import HDF5Plugin  # noqa: E402
from sim_devices.phantom import experiment  # noqa: E402
from sim_devices.physics import Detector, DetectorPhysics  # noqa: E402
from sim_devices.plugin import ImagePlugin  # noqa: E402
from sim_devices.pva_plugin import PvaPlugin  # noqa: E402
from sim_devices.pvs import Outbox, PVTable  # noqa: E402
from sim_devices.scene import Scene  # noqa: E402
from sim_devices.server import InterruptibleServer  # noqa: E402
from sim_devices.shutter import Beam  # noqa: E402
from sim_devices.stage import RotationStage  # noqa: E402

logger = logging.getLogger(__name__)

# The paper's set-up: 647 rows and 768 columns of 0.2 mm; other sizes keep the field of view.
PAPER_WIDTH_MM = 768 * 0.2
PAPER_SOURCE_AXIS_MM = 441.4
PAPER_SOURCE_DETECTOR_MM = 1069.0
PHYSICS_NAMES = [field.name for field in fields(DetectorPhysics)]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim_devices.ioc", description=__doc__)
    parser.add_argument("--prefix", default="SIM:")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--columns", type=int, default=160)
    parser.add_argument("--geometry", choices=("cone", "parallel"), default="cone")
    parser.add_argument("--pixel-mm", type=float, help="default: the paper's field of view over the columns")
    parser.add_argument("--source-axis-mm", type=float, default=PAPER_SOURCE_AXIS_MM)
    parser.add_argument("--source-detector-mm", type=float, default=PAPER_SOURCE_DETECTOR_MM)
    parser.add_argument("--axis-offset-mm", type=float, default=0.0)
    parser.add_argument("--experiment", choices=("A", "B"), default="A")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--photons", type=float, help="photons on a pixel of the open beam in 20 ms")
    parser.add_argument(
        "--physics",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"set what beam and detector do; may be repeated; names: {', '.join(PHYSICS_NAMES)}",
    )
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="where the file plugin writes at first")
    parser.add_argument("--max-rate", type=float, default=100.0, help="most frames in a second")
    parser.add_argument("--prerender", type=int, default=0, metavar="N", help="play N projections rendered beforehand")
    parser.add_argument(
        "--prerender-exposure-s", type=float, default=0.012, help="exposure of the frames rendered beforehand"
    )
    return parser.parse_args(arguments)


def make_geometry(options: argparse.Namespace) -> Geometry:
    pixel_mm = options.pixel_mm or PAPER_WIDTH_MM / options.columns
    detector = {
        "n_u": options.columns,
        "n_v": options.rows,
        "pixel_mm": pixel_mm,
        "axis_offset_mm": options.axis_offset_mm,
    }
    if options.geometry == "parallel":
        return ParallelGeometry(**detector)
    return ConeGeometry(
        **detector, source_axis_mm=options.source_axis_mm, source_detector_mm=options.source_detector_mm
    )


class Beamline:
    """Wire the devices to one database of PVs and serve it."""

    def __init__(self, options: argparse.Namespace) -> None:
        loop = asyncio.get_running_loop()
        self._options = options
        self._outbox = Outbox(loop)
        table = PVTable(options.prefix)
        self.database = table.database
        self._geometry = geometry = make_geometry(options)
        shape = geometry.n_v, geometry.n_u
        phantom = experiment(
            options.experiment, seed=options.seed, radius_mm=geometry.radius_mm, half_height_mm=geometry.half_height_mm
        )
        self._stage = RotationStage(table.scoped("ROT"))
        self._scene = Scene(
            table,
            phantom=phantom,
            geometry=geometry,
            detector=Detector(make_physics(options), *shape, options.seed),
            stage=self._stage,
            beam=Beam(table),
        )
        camera = table.scoped("DET:")
        self._faults = Faults(table.scoped("FAULT:"), seed=options.seed)
        self._pva = PvaPlugin(camera.scoped("Pva1:"), self._outbox, shape=shape, faults=self._faults)
        options.directory.mkdir(parents=True, exist_ok=True)
        self._file = HDF5Plugin(
            camera.scoped("HDF1:"), self._outbox, shape=shape, directory=options.directory.resolve()
        )
        self._camera = Camera(
            camera.scoped("cam1:"),
            self._outbox,
            scene=self._scene,
            faults=self._faults,
            # Files first: whoever sees a frame over the network finds it in the file.
            plugins=[self._file, self._pva, ImagePlugin(camera.scoped("image1:"), self._outbox, shape=shape)],
            max_rate_hz=options.max_rate,
        )

    async def run(self) -> None:
        """Serve until cancelled."""
        if self._options.prerender:
            await self._scene.prerender(self._options.prerender, exposure_s=self._options.prerender_exposure_s)
        self._pva.open()
        server = InterruptibleServer(self.database)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._stage.run())
                tasks.create_task(self._disconnect(server))
                # A task too: caproto's server swallows its own cancellation.
                tasks.create_task(server.run(startup_hook=self._announce))
        finally:
            await self._camera.close()
            self._file.close()
            self._pva.close()

    async def _announce(self, _: AsyncLibraryLayer) -> None:
        """Say that all PVs answer, and what the set-up is."""
        sys.stdout.write(f"ready {json.dumps(self._geometry.to_metadata())}\n")
        sys.stdout.flush()

    async def _disconnect(self, server: InterruptibleServer) -> None:
        """Take both servers away for a while, each time that is asked for."""
        while True:
            seconds = await self._faults.disconnection()
            logger.warning("disconnected on request for %g s", seconds)
            server.leave()
            self._pva.close()
            await asyncio.sleep(seconds)
            self._pva.open()
            server.come_back()


def make_physics(options: argparse.Namespace) -> DetectorPhysics:
    photons = [] if options.photons is None else [f"photons={options.photons}"]
    physics = DetectorPhysics.parse([*photons, *options.physics])
    if physics.hard_fraction:
        raise ValueError(f"hard_fraction is {physics.hard_fraction}: the simulated beam has one energy; leave it at 0")
    return physics


async def _main(options: argparse.Namespace) -> None:
    try:
        beamline = asyncio.create_task(Beamline(options).run())
    except ValueError as error:
        sys.exit(f"sim_devices.ioc: {error}")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, beamline.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        try:
            await beamline
        except* OSError as errors:
            logger.error("the servers ended: %s; is another server using their ports?", errors.exceptions[0])
            sys.exit(1)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Say in one line why a client's put was refused."""
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]}", ()
        record.exc_info = None
    return True


def main(arguments: list[str] | None = None) -> None:
    """Run the simulated beamline until it is interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Where no client has ever run there is no repeater to hear the beacons, which is no error.
    logging.getLogger("caproto.ctx").addFilter(lambda record: "Failed to send beacon" not in str(record.msg))
    logging.getLogger("caproto.circ").addFilter(_without_traceback)
    asyncio.run(_main(parse_arguments(arguments)))


if __name__ == "__main__":
    main()
