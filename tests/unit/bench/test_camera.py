"""The benchmark's camera: frames in a file, and documents that tell of each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bluesky_jit.bench.camera import BLANKS, PlayedScan, _Recorder
from bluesky_jit.tomo.geometry import ConeGeometry

SCAN = PlayedScan(
    geometry=ConeGeometry(n_u=16, n_v=12, pixel_mm=9.6, source_axis_mm=441.4, source_detector_mm=1069),
    angles_per_turn=6,
    exposure_s=0.012,
    announce_s=0.02,
)


def test_every_frame_is_in_the_file_with_its_angle_and_told_of_once(tmp_path: Path) -> None:
    import h5py

    told: list[tuple[str, Any]] = []
    recorder = _Recorder(SCAN, tmp_path, lambda name, document: told.append((name, document)))
    uid = recorder.begin()
    times_s = np.concatenate([recorder.play(500.0, 0.02).times_s, recorder.play(500.0, 0.02).times_s])
    assert recorder.end() == len(times_s)
    with h5py.File(tmp_path / "run-1-projection.h5") as file:
        assert np.asarray(file["/entry/data/data"]).shape == (len(times_s), 12, 16)
        angles = np.asarray(file["/entry/instrument/NDAttributes/Angle"])
        np.testing.assert_allclose(angles, 60.0 * np.arange(len(times_s)))
    images = {doc["uid"] for name, doc in told if name == "stream_resource" and doc["data_key"] == "camera"}
    rows = [
        row
        for name, doc in told
        if name == "stream_datum" and doc["stream_resource"] in images
        for row in range(doc["indices"]["start"], doc["indices"]["stop"])
    ]
    assert rows == [*range(BLANKS), *range(BLANKS), *range(len(times_s))]
    assert (told[0][1]["uid"], told[-1][0], told[-1][1]["run_start"]) == (uid, "stop", uid)
