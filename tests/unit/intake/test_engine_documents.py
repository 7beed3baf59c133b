"""Documents that a real RunEngine makes of monitored stages, flyers and shared detectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from engine import ending_engine
from event_model import compose_stream_resource
from ophyd import Signal
from ophyd.areadetector.filestore_mixins import resource_factory
from ophyd.sim import NullStatus, SynSignal
from recorder import Recorder

from bluesky_jit.intake.callback import JITCallback
from bluesky_jit.messages import AssetFrames, InlineFrames, Problem
from bluesky_jit.settings import load_settings

N = 6


@pytest.fixture
def engine() -> Iterator[RunEngine]:
    with ending_engine() as engine:
        yield engine


@pytest.fixture
def received(engine: RunEngine) -> Recorder:
    recorder = Recorder(settings=load_settings(environment={}, tomo={"angles_per_turn": 12}))
    engine.subscribe(JITCallback(recorder))
    return recorder


class Stage(Signal):
    """Read in degrees, as a motor record does."""

    def describe(self) -> dict[str, Any]:
        described = super().describe()
        described[self.name]["units"] = "degrees"
        return described


def test_a_stage_that_is_monitored_during_a_run(engine: RunEngine, received: Recorder) -> None:
    stage = Stage(name="rot", value=0.0)
    camera = SynSignal(func=lambda: np.ones((4, 6)), name="camera")

    @bpp.monitor_during_decorator([stage])
    @bpp.run_decorator(md={"plan_name": "turn_and_shoot"})
    def plan() -> Any:
        for name in ("dark", "flat"):
            yield from bps.trigger_and_read([camera], name=name)
        for number in range(N):
            yield from bps.abs_set(stage, 10.0 * number, wait=True)
            yield from bps.trigger_and_read([camera], name="primary")
        yield from bps.abs_set(stage, 10.0 * N, wait=True)

    engine(plan())
    projections = [m for m in received.of(InlineFrames) if m.kind == "projection"]
    angles = np.rad2deg([m.angles_rad[0] for m in projections])
    assert {m.angle_source for m in projections} == {"monitored stream"}
    assert (angles >= 10 * np.arange(N)).all()
    assert (angles <= 10 * np.arange(1, N + 1)).all()
    assert received.of(Problem) == []


class ZebraFlyer:
    """Make what a flyer of arrays in files collects: one event, whose time stamps are no numbers."""

    name = "zebra"
    parent = None

    def __init__(self, folder: Path) -> None:
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._ids: dict[str, str] = {}
        for key, spec, kwargs, pointer in (
            ("enc1_pi_r", "ZEBRA_HDF51", {}, {"column": "enc1_pi_r"}),
            ("Andor_image", "AD_HDF5", {"frame_per_point": N}, {"point_number": 0}),
        ):
            resource, make_datum = resource_factory(spec, str(folder), f"{key}.h5", kwargs, "posix")
            datum = make_datum(pointer)
            self._documents += [("resource", resource), ("datum", datum)]
            self._ids[key] = datum["datum_id"]

    def kickoff(self) -> NullStatus:
        return NullStatus()

    def complete(self) -> NullStatus:
        return NullStatus()

    def describe_collect(self) -> dict[str, Any]:
        external = {"source": "PV", "dtype": "array", "external": "FileStore:"}
        return {
            "primary": {
                "enc1_pi_r": {**external, "shape": [N]},
                "Andor_image": {**external, "shape": [N, 4, 6]},
            }
        }

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from self._documents

    def collect(self) -> Iterator[dict[str, Any]]:
        stamps = {**self._ids, "Andor_image": 1.79e9}
        yield {"time": 1.79e9, "data": self._ids, "timestamps": stamps}


def test_a_flyer_that_collects_files(engine: RunEngine, received: Recorder, tmp_path: Path) -> None:
    flyer = ZebraFlyer(tmp_path)

    @bpp.run_decorator(md={"plan_name": "tomo_zfly", "plan_args": {"slew_speed": 60, "acquisition_period": 0.05}})
    def plan() -> Any:
        yield from bps.kickoff(flyer, wait=True)
        yield from bps.complete(flyer, wait=True)
        yield from bps.collect(flyer)

    engine(plan())
    [frames] = received.of(AssetFrames)
    assert frames.angle is not None
    assert (frames.image.count, frames.angle.dataset, frames.angle.rows) == (N, "/enc1_pi_r", N)
    assert frames.angle_source == "same stream"
    assert received.of(Problem) == []


class SharedDetector:
    """Write all frames of a run into one dataset, whatever stream they belong to."""

    name = "det"
    parent = None

    def __init__(self, counts: list[int]) -> None:
        self._counts = iter(counts)
        self._written = 0
        self._resource: Any = None

    def describe(self) -> dict[str, Any]:
        return {"det": {"source": "PV", "dtype": "array", "shape": [4, 6], "external": "STREAM:"}}

    def describe_collect(self) -> dict[str, Any]:
        return self.describe()

    def read(self) -> dict[str, Any]:
        return {}

    def get_index(self) -> int:
        return self._written + 100

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        if self._resource is None:
            self._resource = compose_stream_resource(
                mimetype="application/x-hdf5",
                uri="file://localhost/frames.h5",
                data_key="det",
                parameters={"dataset": "/entry/data/data"},
            )
            yield "stream_resource", self._resource.stream_resource_doc
        first, self._written = self._written, self._written + next(self._counts)
        yield "stream_datum", self._resource.compose_stream_datum({"start": first, "stop": self._written})


def test_one_detector_in_several_streams_as_in_blueskys_example(engine: RunEngine, received: Recorder) -> None:
    detector = SharedDetector([4, 2, N, 4])

    @bpp.run_decorator(md={"plan_name": "tomo_plan"})
    def plan() -> Any:
        for name in ("flats", "darks", "projections"):
            yield from bps.declare_stream(detector, name=name, collect=name == "projections")
        for name in ("flats", "darks", "projections", "flats"):
            yield from bps.collect(detector, name=name)

    engine(plan())
    came = [(m.kind, m.image.first, m.image.count) for m in received.of(AssetFrames)]
    assert came == [("flat", 0, 4), ("dark", 4, 2), ("projection", 6, N), ("flat", 6 + N, 4)]
    [projections] = [m for m in received.of(AssetFrames) if m.kind == "projection"]
    assert np.rad2deg(projections.angles_rad) == pytest.approx(30.0 * np.arange(N))
    assert received.of(Problem) == []
