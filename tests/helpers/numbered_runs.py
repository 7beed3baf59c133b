"""Runs whose pixels say which frame they are, as documents that may be lost, doubled or late on their way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from event_model import compose_run

from bluesky_jit.messages import FrameKind, ProjectionBlock

Documents = list[tuple[str, Any]]

SHAPE = (6, 8)
ANGLES = 12
STEP_DEG = 360.0 / ANGLES
NUMBERS: dict[FrameKind, int] = {"dark": 3, "flat": 4, "projection": ANGLES}
STREAMS: dict[FrameKind, str] = {"dark": "darks", "flat": "flats", "projection": "primary"}
LEVELS: dict[FrameKind, int] = {"dark": 100, "flat": 40_000, "projection": 20_000}
"""Counts of frame 0 of run 0; each frame has one more than the frame before."""
RUN_STEP = 1000
FIRST_IDS: dict[FrameKind, int] = {"dark": 50, "flat": 53, "projection": 57}
"""A detector counts on over darks, flats and projections."""
BEGAN_S = 1.79e9
COLUMNS = {"camera": "/image", "camera_angle": "/angle", "camera_unique_id": "/id", "camera_frame_time": "/time"}
ROWS_AT_ONCE = 3
TOMO = {"geometry": "parallel", "pixel_mm": 0.1, "angle_key": "camera_angle", "n_angles_per_rotation": ANGLES}


def counts_of(run: int, kind: FrameKind) -> np.ndarray:
    """Return the frames of a kind, uint16 (n, n_v, n_u); every pixel says which run and frame it is of."""
    values = LEVELS[kind] + RUN_STEP * run + np.arange(NUMBERS[kind])
    return np.broadcast_to(values[:, None, None], (len(values), *SHAPE)).astype(np.uint16)


def columns_of(run: int, kind: FrameKind) -> dict[str, np.ndarray]:
    numbers = np.arange(NUMBERS[kind])
    ids = FIRST_IDS[kind] + numbers
    return {
        "camera": counts_of(run, kind),
        "camera_angle": STEP_DEG * numbers,
        "camera_unique_id": ids,
        "camera_frame_time": BEGAN_S + 100 * run + ids,
    }


def write_files(folder: Path, run: int) -> None:
    """Write the frames of a run, a file for each kind."""
    for kind in NUMBERS:
        with h5py.File(folder / f"{run}-{kind}.h5", "w", libver="latest") as file:
            for key, values in columns_of(run, kind).items():
                chunks = (1, *SHAPE) if key == "camera" else None
                file.create_dataset(COLUMNS[key], data=values, chunks=chunks)


def documents_of(run: int, folder: Path | None) -> Documents:
    """Return the documents of a run: rows of the files in a folder, or, without one, frames inside events."""
    composed = compose_run(metadata={"tomo": TOMO, "plan_name": "tomo_scan", "num_points": ANGLES, "scan_id": run + 1})
    documents: Documents = [("start", composed.start_doc)]
    for kind in NUMBERS:
        data_keys = {
            key: {
                "source": "PV",
                "dtype": "array" if key == "camera" else "number",
                "shape": list(SHAPE) if key == "camera" else [],
                "units": "deg" if key == "camera_angle" else "",
                **({"external": "STREAM:"} if folder else {}),
            }
            for key in COLUMNS
        }
        stream = composed.compose_descriptor(name=STREAMS[kind], data_keys=data_keys)
        documents.append(("descriptor", stream.descriptor_doc))
        if folder is None:
            columns = columns_of(run, kind)
            for number in range(NUMBERS[kind]):
                data = {key: values[number] for key, values in columns.items()}
                event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, BEGAN_S + number))
                documents.append(("event", event))
            continue
        bundles = {
            key: composed.compose_stream_resource(
                mimetype="application/x-hdf5",
                uri=f"file://localhost{folder}/{run}-{kind}.h5",
                data_key=key,
                parameters={"dataset": dataset, "swmr": True},
            )
            for key, dataset in COLUMNS.items()
        }
        documents += [("stream_resource", bundle.stream_resource_doc) for bundle in bundles.values()]
        for first in range(0, NUMBERS[kind], ROWS_AT_ONCE):
            stop = min(first + ROWS_AT_ONCE, NUMBERS[kind])
            for bundle in bundles.values():
                indices, numbers = {"start": first, "stop": stop}, {"start": first + 1, "stop": stop + 1}
                documents.append(("stream_datum", bundle.compose_stream_datum(indices, numbers, stream.descriptor_doc)))
    return [*documents, ("stop", composed.compose_stop())]


@dataclass(kw_only=True)
class Delivered:
    """Which frames of a run its documents brought, and whether they brought its end."""

    uid: str
    frames: dict[FrameKind, set[int]] = field(default_factory=lambda: {kind: set() for kind in NUMBERS})
    announced: dict[FrameKind, set[int]] = field(default_factory=lambda: {kind: set() for kind in NUMBERS})
    """Those of which any document told that a file has them."""
    stopped: bool = False

    @property
    def known_lost(self) -> int:
        """Count the frames known to be lost: gaps in the detector's count, what was announced, projections to come."""
        gaps = {
            kind: max(numbers) + 1 - min(numbers) - len(numbers) for kind, numbers in self.frames.items() if numbers
        }
        if not self.stopped:
            return sum(gaps.values())
        others: tuple[FrameKind, ...] = ("dark", "flat")
        unread = sum(max(gaps.get(kind, 0), len(self.announced[kind] - self.frames[kind])) for kind in others)
        return unread + NUMBERS["projection"] - len(self.frames["projection"])


def delivered(documents: Iterable[tuple[str, Any]]) -> list[Delivered]:
    """Follow documents as they come and say what each run brought: a frame has come with all of its columns."""
    runs: dict[str, Delivered] = {}
    run_of: dict[str, str] = {}
    kind_of: dict[str, FrameKind] = {}
    key_of: dict[str, str] = {}
    columns: dict[tuple[str, str], set[int]] = {}
    unlocated: dict[str, list[dict[str, Any]]] = {}
    kinds = {name: kind for kind, name in STREAMS.items()}

    def take(datum: dict[str, Any]) -> None:
        """Take rows of a column; those of a file that is not known yet wait for it."""
        stream = datum["descriptor"]
        run, kind = runs[run_of[stream]], kind_of[stream]
        frames, announced = run.frames[kind], run.announced[kind]
        rows = range(datum["indices"]["start"], datum["indices"]["stop"])
        # An angle that no dark or flat needs need not come.
        needed = [key for key in COLUMNS if key != "camera_angle" or kind == "projection"]
        key = key_of.get(datum["stream_resource"])
        if key is None:
            unlocated.setdefault(datum["stream_resource"], []).append(datum)
        if key is None or key in needed:
            announced.update(rows)
        if key is not None:
            columns.setdefault((stream, key), set()).update(rows)
            frames.update(set.intersection(*(columns.get((stream, each), set()) for each in needed)))

    for name, document in documents:
        if name == "start":
            runs.setdefault(document["uid"], Delivered(uid=document["uid"]))
        elif name == "stop" and document["run_start"] in runs:
            runs[document["run_start"]].stopped = True
        elif name in ("descriptor", "stream_resource") and _is_open(runs, document["run_start"]):
            run_of[document["uid"]] = document["run_start"]
            if name == "descriptor":
                kind_of[document["uid"]] = kinds[document["name"]]
            else:
                key_of[document["uid"]] = document["data_key"]
                for datum in unlocated.pop(document["uid"], []):
                    take(datum)
        elif name in ("event", "stream_datum") and document["descriptor"] in kind_of:
            run = runs[run_of[document["descriptor"]]]
            if run.stopped:
                continue
            if name == "event":
                run.frames[kind_of[document["descriptor"]]].add(document["seq_num"] - 1)
            else:
                take(document)
    return list(runs.values())


def _is_open(runs: dict[str, Delivered], uid: str) -> bool:
    return uid in runs and not runs[uid].stopped


def frames_in(block: ProjectionBlock, run: int) -> Iterator[int]:
    """Yield the numbers of a block's frames by what their pixels say; fail when an id, angle or time is another's."""
    values = block.counts.astype(int) - LEVELS[block.kind] - RUN_STEP * run
    for i, value in enumerate(values):
        number = int(value.flat[0])
        assert (value == number).all()
        assert 0 <= number < NUMBERS[block.kind]
        assert block.unique_ids[i] == FIRST_IDS[block.kind] + number
        assert block.frame_times_s[i] == BEGAN_S + 100 * run + FIRST_IDS[block.kind] + number
        if block.kind == "projection":
            assert np.isclose(np.rad2deg(block.angles_rad[i]), STEP_DEG * number)
        yield number
