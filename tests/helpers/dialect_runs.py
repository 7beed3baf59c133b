"""Runs of many beamlines' plans, as documents and files, all of one simulated scan over half a turn.

Names of plans, streams and keys, and the fields of start documents and resources are those that the plans write; what
makes the documents is event_model, and the files are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from dialect_scan import ATTRIBUTES, EPICS_S, NOW_S, PER_TURN, Emit, N, Run, Scan, picture, scalar
from event_model import ComposeDescriptorBundle, pack_datum_page, pack_event_page

# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

OWN = {"geometry": "parallel", "pixel_mm": 1.0, "angle_key": "theta", "n_angles_per_rotation": PER_TURN}


def own_step_scan(emit: Emit, scan: Scan, folder: Path, *, more_flats_after: int | None = None, **metadata: Any) -> str:
    """Our plan that stops at each angle: frames inside events. More flats may be taken in mid-run."""
    run = Run(emit, **{"tomo": OWN, "plan_name": "tomo_step_scan", **metadata})
    streams = {
        name: run.stream(name, camera_image=picture(scan.darks), theta=scalar("deg"))
        for name in ("darks", "flats", "primary")
    }

    def take(name: str, frames: np.ndarray) -> None:
        for frame in frames:
            run.event(streams[name], NOW_S, camera_image=frame, theta=0.0)

    take("darks", scan.darks)
    half = len(scan.flats) // 2 if more_flats_after else len(scan.flats)
    take("flats", scan.flats[:half])
    for number, (frame, angle, time_s) in enumerate(zip(scan.projections, scan.angles_deg, scan.times_s, strict=True)):
        if number == more_flats_after:
            take("flats", scan.flats[half:])
        run.event(streams["primary"], time_s, camera_image=frame, theta=angle)
    return run.stop()


def own_fly_scan(emit: Emit, scan: Scan, folder: Path) -> str:
    """Our plan that turns steadily: one file, its angle an attribute of each frame."""
    run = Run(emit, tomo={**OWN, "angle_key": "camera_angle"}, plan_name="tomo_scan", num_points=N)
    frames = np.concatenate([scan.darks, scan.flats, scan.projections])
    path = folder / "own.h5"
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = frames
        file[f"{ATTRIBUTES}/Angle"] = np.concatenate([np.zeros(len(frames) - N), scan.angles_deg])
    first = 0
    columns = {"camera": "/entry/data/data", "camera_angle": f"{ATTRIBUTES}/Angle"}
    for name, count in (("darks", len(scan.darks)), ("flats", len(scan.flats)), ("primary", N)):
        stream = run.stream(
            name,
            camera=picture(frames, external="STREAM:"),
            camera_angle=scalar("deg", external="STREAM:"),
        )
        for key, dataset in columns.items():
            streamed(run, stream, key, path, dataset, range(first, first + count), swmr=True)
        first += count
    return run.stop()


def streamed(
    run: Run,
    stream: ComposeDescriptorBundle,
    key: str,
    path: Path,
    dataset: str,
    rows: range,
    *,
    batch: int = 1000,
    swmr: bool = False,
) -> None:
    """Announce rows of a dataset, some at a time."""
    resource = run.bundle.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{path}",
        data_key=key,
        parameters={"dataset": dataset, "chunk_shape": [1], **({"swmr": True} if swmr else {})},
    )
    run.emit("stream_resource", resource.stream_resource_doc)
    for first in range(rows.start, rows.stop, batch):
        stop = min(first + batch, rows.stop)
        numbers = {"start": first - rows.start + 1, "stop": stop - rows.start + 1}
        datum = resource.compose_stream_datum({"start": first, "stop": stop}, numbers, stream.descriptor_doc)
        run.emit("stream_datum", datum)


# ── NSLS-II FXI ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _andor_file(path: Path, frames: np.ndarray, times_s: np.ndarray) -> None:
    """Write what areaDetector's file plugin writes; it has the time stamps in two parts."""
    since_1990 = times_s - EPICS_S
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = frames
        file[f"{ATTRIBUTES}/NDArrayEpicsTSSec"] = np.floor(since_1990).astype(np.uint32)
        file[f"{ATTRIBUTES}/NDArrayEpicsTSnSec"] = np.round(since_1990 % 1 * 1e9).astype(np.uint32)


def filed(run: Run, spec: str, path: Path, kwargs: dict[str, Any], pointer: dict[str, Any]) -> str:
    """Emit a resource and its datum; return the datum's id."""
    resource = run.bundle.compose_resource(
        spec=spec, root=str(path.parent), resource_path=path.name, resource_kwargs=kwargs
    )
    run.emit("resource", resource.resource_doc)
    datum = resource.compose_datum(datum_kwargs=pointer)
    run.emit("datum_page", pack_datum_page(datum))
    return datum["datum_id"]


def _andor_data(run: Run, path: Path, frames: np.ndarray, times_s: np.ndarray) -> dict[str, Any]:
    _andor_file(path, frames, times_s)
    kwargs = {"frame_per_point": len(frames)}
    return {
        "Andor_image": filed(run, "AD_HDF5", path, kwargs, {"point_number": 0}),
        "Andor_timestamps": filed(run, "AD_HDF5_TS", path, kwargs, {"point_number": 0}),
    }


def _andor_keys(frames: np.ndarray) -> dict[str, dict[str, Any]]:
    n = len(frames)
    return {
        "Andor_image": picture(frames, rows=n, external="FILESTORE:"),
        "Andor_timestamps": {"dtype": "array", "shape": [n], "external": "FILESTORE:"},
    }


MOTORS = ("zps_sx", "zps_sy", "zps_sz", "zps_pi_r")
FXI_FLY_SCAN = {
    "plan_name": "fly_scan",
    "detectors": ["Andor"],
    "motors": list(MOTORS),
    "XEng": 8.3,
    "plan_args": {
        "exposure_time": 0.05,
        "start_angle": None,
        "relative_rot_angle": 180,
        "period": 0.05,
        "out_x": None,
        "rs": 60.0,
        "filters": "None",
        "note": "None",
    },
    "num_bkg_images": 20,
    "num_dark_images": 20,
    "plan_pattern": "linspace",
}


def fxi_fly_scan(emit: Emit, scan: Scan, folder: Path, *, monitored: bool = True, monitor_end_s: float = np.inf) -> str:
    """The stage turns while the camera runs free; all projections are one event, told of when the sweep is over."""
    run = Run(emit, **FXI_FLY_SCAN)
    monitor = None
    if monitored:
        monitor = run.stream("zps_pi_r_monitor", zps_pi_r=scalar("deg"), zps_pi_r_user_setpoint=scalar("deg"))

    def sample(time_s: float, angle_deg: float) -> None:
        if monitor is not None and time_s <= monitor_end_s:
            run.event(monitor, time_s, zps_pi_r=angle_deg, zps_pi_r_user_setpoint=180.0)

    def take(name: str, frames: np.ndarray, times_s: np.ndarray, *, moved: bool, angle_deg: float = 0.0) -> None:
        motors = {motor: scalar("deg" if motor == "zps_pi_r" else "um") for motor in MOTORS if moved}
        stream = run.stream(name, **_andor_keys(frames), ic3=scalar(), **motors)
        data = _andor_data(run, folder / f"{run.uid[:8]}_{name}.h5", frames, times_s)
        positions = dict.fromkeys(motors, 0.5)
        if moved:
            positions["zps_pi_r"] = angle_deg
        run.event(stream, times_s[-1] + 0.2, **data, ic3=1.0, **positions)

    # The stage's value was last new long before the run.
    sample(NOW_S - 500, scan.angles_deg[0])
    take("dark", scan.darks, NOW_S + 0.05 * np.arange(len(scan.darks)), moved=True)
    sample(scan.times_s[0] - 0.01, scan.angles_deg[0])
    # Monitors come at times of their own.
    for time_s in np.linspace(scan.times_s[0], scan.times_s[-1], 400):
        sample(time_s, float(np.interp(time_s, scan.times_s, scan.angles_deg)))
    sample(scan.times_s[-1] + 0.02, scan.angles_deg[-1])
    take("primary", scan.projections, scan.times_s, moved=True, angle_deg=float(scan.angles_deg[-1]))
    take("flat", scan.flats, scan.times_s[-1] + 5 + 0.05 * np.arange(len(scan.flats)), moved=False)
    return run.stop()


def fxi_fly_scan_without_monitor(emit: Emit, scan: Scan, folder: Path) -> str:
    """The same plan on a day when the monitor did not work: only its arguments tell of the angles."""
    return fxi_fly_scan(emit, scan, folder, monitored=False)


def fxi_zebra_scan(emit: Emit, scan: Scan, folder: Path, *, more_positions: int = 0) -> str:
    """A Zebra triggers the camera by the encoder; the flyer's one event is collected, darks and flats come after."""
    run = Run(
        emit,
        plan_name="tomo_zfly",
        detectors=["Andor"],
        motors=list(MOTORS[:3]),
        XEng=8.3,
        plan_args={
            "scan_mode": 0,
            "exposure_time": 0.05,
            "start_angle": 0,
            "end_angle": 180,
            "acquisition_period": 0.05,
            "slew_speed": 60.0,
            "number_of_swings": 1,
        },
        plan_pattern="linspace",
    )
    zebra = folder / f"{run.uid[:8]}_zebra.h5"
    with h5py.File(zebra, "w") as file:
        file["enc1_pi_r"] = np.concatenate([scan.angles_deg, np.full(more_positions, 180.0)])
        file["zebra_time"] = np.concatenate([scan.times_s, np.full(more_positions, scan.times_s[-1])]) - scan.times_s[0]
    array = {"dtype": "array", "shape": [N], "external": "FileStore:"}
    stream = run.stream("primary", zebra_time=array, enc1_pi_r=array, **_andor_keys(scan.projections))
    columns = {key: filed(run, "ZEBRA_HDF51", zebra, {}, {"column": key}) for key in ("zebra_time", "enc1_pi_r")}
    data = _andor_data(run, folder / f"{run.uid[:8]}_primary.h5", scan.projections, scan.times_s)
    event = run.composed(stream, float(scan.times_s[-1]) + 1, **columns, **data)
    event["timestamps"]["enc1_pi_r"] = columns["zebra_time"]
    emit("event_page", pack_event_page(event))
    for name, frames in (("flat", scan.flats), ("dark", scan.darks)):
        stream = run.stream(name, **_andor_keys(frames))
        times_s = scan.times_s[-1] + 10 + 0.05 * np.arange(len(frames))
        data = _andor_data(run, folder / f"{run.uid[:8]}_{name}.h5", frames, times_s)
        run.event(stream, float(times_s[-1]), **data)
    return run.stop()


# ── NSLS-II HEX ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _kinetix_run(run: Run, name: str, frames: np.ndarray, folder: Path) -> None:
    path = folder / f"{run.uid[:8]}_{name}.h5"
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = frames
    stream = run.stream(name, kinetix1=picture(frames, rows=1, external="STREAM:"))
    streamed(run, stream, "kinetix1", path, "/entry/data/data", range(len(frames)))


def hex_dark_flat(emit: Emit, scan: Scan, folder: Path) -> str:
    """Darks and flats are a run of their own."""
    run = Run(emit, plan_name="tomo_loop", tomo_scanning_mode="dark_flat", current_dark_flat_scan_uid="an earlier one")
    _kinetix_run(run, "dark", scan.darks, folder)
    _kinetix_run(run, "flat", scan.flats, folder)
    return run.stop()


def hex_fly_scan(emit: Emit, scan: Scan, folder: Path) -> str:
    """A PandA records angles in a file of its own; documents come about every second, from either when it likes."""
    lender = hex_dark_flat(emit, scan, folder)
    run = Run(
        emit,
        plan_name="tomo_flyscan",
        detectors=["kinetix1"],
        num_points=N,
        hints={},
        tomo_scanning_mode="tomo_flyscan",
        current_dark_flat_scan_num=1,
        current_dark_flat_scan_uid=lender,
    )
    path, panda = folder / f"{run.uid[:8]}.h5", folder / f"{run.uid[:8]}_panda.h5"
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = scan.projections
    with h5py.File(panda, "w") as file:
        file["/Angle"] = scan.angles_deg
        file["/PCAP.TS_TRIG"] = scan.times_s - scan.times_s[0]
    angle = scalar(external="STREAM:")
    stream = run.stream("tomo", Angle=angle, kinetix1=picture(scan.projections, rows=1, external="STREAM:"))
    streamed(run, stream, "kinetix1", path, "/entry/data/data", range(N), batch=17)
    streamed(run, stream, "Angle", panda, "/Angle", range(N), batch=25)
    return run.stop()


# ── bluesky ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def bluesky_tomo_plan(emit: Emit, scan: Scan, folder: Path) -> str:
    """Bluesky's example: one stream_resource for all streams, flats before and after, and no angle at all."""
    run = Run(emit, plan_name="tomo_plan", plan_type="generator")
    half = len(scan.flats) // 2
    series = [
        ("flats", scan.flats[:half]),
        ("darks", scan.darks),
        ("projections", scan.projections),
        ("flats", scan.flats[half:]),
    ]
    path = folder / f"{run.uid[:8]}.h5"
    with h5py.File(path, "w") as file:
        file["/entry/data/data"] = np.concatenate([frames for _, frames in series])
    streams = {
        name: run.stream(name, **{"det1-sd1": picture(scan.darks, external="STREAM:")})
        for name in ("flats", "darks", "projections")
    }
    resource = run.bundle.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{path}",
        data_key="det1-sd1",
        parameters={"dataset": "/entry/data/data"},
    )
    run.emit("stream_resource", resource.stream_resource_doc)
    first, taken = 0, dict.fromkeys(streams, 0)
    for name, frames in series:
        stop, begin = first + len(frames), taken[name] + 1
        taken[name] += len(frames)
        datum = resource.compose_stream_datum(
            {"start": first, "stop": stop}, {"start": begin, "stop": begin + len(frames)}, streams[name].descriptor_doc
        )
        run.emit("stream_datum", datum)
        first = stop
    return run.stop()


def bluesky_step_scan(emit: Emit, scan: Scan, folder: Path) -> str:
    """`bp.scan` of one motor, in radians, with the darks and flats of another run; events come in pages of seven."""
    lender = hex_dark_flat(emit, scan, folder)
    run = Run(
        emit,
        plan_name="scan",
        detectors=["cam"],
        motors=["rot"],
        num_points=N,
        num_intervals=N - 1,
        plan_args={"detectors": ["cam"], "num": N, "args": ["rot", 0.0, 180.0], "per_step": "None"},
        plan_pattern="inner_product",
        current_dark_flat_scan_uid=lender,
    )
    stream = run.stream("primary", cam_image=picture(scan.projections), rot=scalar("rad"), rot_user_setpoint=scalar())
    events = [
        run.composed(stream, time_s, cam_image=frame, rot=np.deg2rad(angle), rot_user_setpoint=0.0)
        for frame, angle, time_s in zip(scan.projections, scan.angles_deg, scan.times_s, strict=True)
    ]
    for first in range(0, N, 7):
        emit("event_page", pack_event_page(*events[first : first + 7]))
    return run.stop()


def unknown_plan(emit: Emit, scan: Scan, folder: Path) -> str:
    """A plan that nobody knows, inside an outer run without frames; what it is shows when flats come, at its end."""
    outer = Run(emit, plan_name="adaptive_plan")
    decision = outer.stream("decisions", next_energy=scalar("keV"))
    outer.event(decision, NOW_S, next_energy=9.0)
    run = Run(emit, plan_name="my_scan", motors=["x", "rot"])
    keys = {"x": scalar("mm"), "rot": scalar("deg")}
    primary = run.stream("primary", cam_image=picture(scan.projections, rows=5), **{**keys, "rot": scalar("deg")})
    for first in range(0, N, 5):
        several = slice(first, min(first + 5, N))
        data = {"cam_image": scan.projections[several], "x": 0.0, "rot": scan.angles_deg[several]}
        run.event(primary, float(scan.times_s[several][-1]), **data)
        outer.event(decision, NOW_S, next_energy=9.0 + first)
    for name, frames in (("flat", scan.flats), ("dark", scan.darks)):
        stream = run.stream(name, cam_image=picture(frames), **keys)
        for frame in frames:
            run.event(stream, NOW_S + 60, cam_image=frame, x=10.0, rot=0.0)
    run.stop()
    outer.stop()
    return run.uid


def monitored_step_scan(emit: Emit, scan: Scan, folder: Path) -> str:
    """Frames in events of a stage that turns on and is monitored: each waits for the sample after it."""
    run = Run(emit, plan_name="turn_and_shoot")
    monitor = run.stream("rot_monitor", rot=scalar("deg"), rot_user_setpoint=scalar("deg"))
    for name, frames in (("darks", scan.darks), ("flats", scan.flats)):
        stream = run.stream(name, cam_image=picture(frames))
        for frame in frames:
            run.event(stream, NOW_S, cam_image=frame)
    primary = run.stream("primary", cam_image=picture(scan.projections))
    for number, time_s in enumerate(scan.times_s):
        run.event(
            monitor,
            time_s - 0.001,
            rot=float(np.interp(time_s - 0.001, scan.times_s, scan.angles_deg)),
            rot_user_setpoint=180.0,
        )
        run.event(primary, time_s, cam_image=scan.projections[number])
    run.event(monitor, scan.times_s[-1] + 0.001, rot=float(scan.angles_deg[-1]), rot_user_setpoint=180.0)
    return run.stop()


def in_bulk(documents: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Return documents as old RunEngines sent them: events and datums in bulk."""
    for name, document in documents:
        if name == "event":
            yield "bulk_events", {document["descriptor"]: [document]}
        elif name == "datum_page":
            yield (
                "bulk_datum",
                {
                    "resource": document["resource"],
                    "datum_ids": document["datum_id"],
                    "datum_kwarg_list": [
                        {key: values[n] for key, values in document["datum_kwargs"].items()}
                        for n in range(len(document["datum_id"]))
                    ],
                },
            )
        else:
            yield name, document
