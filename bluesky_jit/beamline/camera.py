"""The camera: areaDetector's driver and HDF5 plugin as one ophyd device that steps and flies.

Both ways frames go to HDF5 files, one for each stream of a run, and are announced as stream_resource and stream_datum.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ophyd import Component, DeviceStatus
from ophyd.areadetector import CamBase, DetectorBase
from ophyd.device import Staged
from ophyd.status import StatusBase, SubscriptionStatus
from ophyd.utils.errors import InvalidState

from bluesky_jit.beamline.reads import forget_unanswered_reads
from bluesky_jit.beamline.writer import PUT_TIMEOUT_S, Column, FileWriter, StreamFile

logger = logging.getLogger(__name__)

FRAME_TIMEOUT_S = 10.0
"""A triggered frame that has not been written this long after its exposure is lost."""
ATTRIBUTES = "/entry/instrument/NDAttributes/"
MULTIPLE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """Ask the camera for a series of frames that go to one file."""

    frames: int
    """0: as many as are triggered."""
    exposure_s: float
    period_s: float | None = None
    """Time from frame to frame; None: the exposure, or what the camera needs."""
    triggered: bool = False
    """One frame for each trigger instead of a free-running series."""
    label: str = ""
    """Ends the file's name."""


class TomoCamera(DetectorBase):
    """Take frames, each with its angle, unique id and time stamp.

    It steps (`count([camera])`) and flies (`prepare`, `kickoff`, `complete`, `collect`). The angle is the NDAttribute
    `angle_attribute`, in degrees, which the IOC takes from the stage (its attributes file names the PV).
    """

    cam = Component(CamBase, "cam1:", kind="config")
    hdf5 = Component(FileWriter, "HDF1:", kind="omitted")

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        file_directory: str = "",
        angle_attribute: str = "Angle",
        pva: str = "Pva1:Image",
        **kwargs: Any,
    ) -> None:
        """Make the device; pva: its pvAccess image, after the prefix, or empty when there is none."""
        super().__init__(prefix, name=name, **kwargs)
        self.pva = prefix + pva if pva else ""
        """PV of its pvAccess image, from which a session takes frames as they are made."""
        self.file_directory = file_directory
        self.angle_attribute = angle_attribute
        self.stage_sigs.update([("cam.acquire", 0), ("cam.image_mode", MULTIPLE)])
        # A plugin that blocks the driver slows a free-running camera down to the speed of the disk.
        self.hdf5.ensure_nonblocking()
        self._acquisition: Acquisition | None = None
        self._file: StreamFile | None = None
        self._exposing: DeviceStatus | None = None
        self._writing: DeviceStatus | None = None

    def __repr__(self) -> str:
        # ophyd's own reads half the PVs, which a camera without an IOC makes one wait for in vain.
        return f"TomoCamera(prefix={self.prefix!r}, name={self.name!r})"

    @property
    def angle_key(self) -> str:
        """Return the data key of the angle."""
        return f"{self.name}_angle"

    @property
    def hints(self) -> dict[str, Any]:
        """Return no fields: nothing here fits a table or a line plot."""
        return {"fields": []}

    # ── a series of frames ───────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, acquisition: Acquisition) -> DeviceStatus:
        """Set exposure and number of frames and open a new file."""
        self._close_file()
        for signal, value in (
            (self.cam.acquire_time, acquisition.exposure_s),
            (self.cam.acquire_period, acquisition.period_s or acquisition.exposure_s),
            (self.cam.num_images, 1 if acquisition.triggered else acquisition.frames),
        ):
            signal.put(value, wait=True, timeout=PUT_TIMEOUT_S)
        path = self.hdf5.open_file(directory=self.file_directory, label=acquisition.label, frames=acquisition.frames)
        self._file = StreamFile(path, self._columns(), swmr=bool(self.hdf5.swmr_mode.get()))
        self._acquisition = acquisition
        status = DeviceStatus(self)
        status.set_finished()
        return status

    def kickoff(self) -> DeviceStatus:
        """Start the series that was prepared."""
        if self._acquisition is None or self._acquisition.triggered:
            raise RuntimeError(f"{self.name} has no series to start: prepare an Acquisition that is not triggered")
        self._exposing = self._expose()
        status = DeviceStatus(self)
        status.set_finished()
        return status

    def complete(self) -> StatusBase:
        """Return a status that is done when every frame is in the file, or when the camera is stopped."""
        if self._acquisition is None or self._exposing is None:
            raise RuntimeError(f"{self.name} is not taking a series: kick it off first")
        self._writing = self._written(self._acquisition.frames)
        return self._exposing & self._writing

    def stop(self, *, success: bool = False) -> None:
        """Stop exposing; what was exposed stays in the file."""
        self.cam.acquire.put(0, wait=False)
        for status in (self._exposing, self._writing):
            if status is not None and not status.done:
                _finish(status)

    # ── single frames ────────────────────────────────────────────────────────────────────────────────────────────────

    def trigger(self) -> Any:
        """Take one frame; the status is done when it is in the file and the camera can take the next."""
        exposure_s = float(self.cam.acquire_time.get())
        if self._file is None:
            self.prepare(Acquisition(frames=0, exposure_s=exposure_s, triggered=True))
        written = self.get_index()
        if self._file is not None:
            # A frame whose event never came (the plan was paused and went back) stays in the file unannounced.
            self._file.skip_to(written)
        timeout_s = exposure_s + FRAME_TIMEOUT_S
        return self._written(written + 1, timeout_s) & self._expose(timeout_s)

    def stage(self) -> list[object]:
        forget_unanswered_reads(self)
        return super().stage()

    def unstage(self) -> list[object]:
        try:
            self._close_file()
            return super().unstage()
        except Exception as error:
            # With its IOC gone there is nothing to restore; a camera that stayed half staged could not be used again.
            logger.error("%s is left as it is: %s", self.name, error)
            logger.debug("%s could not be restored", self.name, exc_info=True)
            for device in (self, *(device for _, device in self.walk_subdevices(include_lazy=False))):
                device._original_vals.clear()
                device._staged = Staged.no
            return [self]

    def _expose(self, timeout_s: float | None = None) -> DeviceStatus:
        """Start exposing; the status is done when the camera is idle again."""
        status = DeviceStatus(self, timeout=timeout_s)
        # Acquire is a busy record: its put completes when the acquisition does.
        self.cam.acquire.put(1, use_complete=True, callback=lambda **_: _finish(status))
        return status

    def _written(self, frames: int, timeout_s: float | None = None) -> DeviceStatus:
        return SubscriptionStatus(self.hdf5.num_captured, lambda *, value, **_: value >= frames, timeout=timeout_s)

    # ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────

    def describe(self) -> Any:
        return super().describe() | self.describe_collect()

    def describe_collect(self) -> dict[str, Any]:
        """Return a data key for each dataset of the file."""
        return {column.key: column.to_data_key(f"ca://{self.hdf5.prefix}") for column in self._columns()}

    def get_index(self) -> int:
        """Return how many frames are in the file."""
        return self.hdf5.written

    def collect_asset_docs(self, index: int | None = None) -> Generator[tuple[str, Any], None, None]:
        """Yield stream_resource documents once for each file, then stream_datum documents for rows that are new."""
        if self._file is not None:
            written = self.get_index()
            yield from self._file.documents(written if index is None else min(written, index))

    def _columns(self) -> tuple[Column, ...]:
        height, width = int(self.cam.array_size.array_size_y.get()), int(self.cam.array_size.array_size_x.get())
        return (
            Column(
                key=self.name,
                dataset="/entry/data/data",
                dtype_numpy=np.dtype(str(self.cam.data_type.get(as_string=True)).lower()).str,
                shape=(height, width),
                chunk=(max(1, int(self.hdf5.num_frames_chunks.get())), height, width),
            ),
            Column(key=self.angle_key, dataset=ATTRIBUTES + self.angle_attribute, dtype_numpy="<f8", units="deg"),
            Column(key=f"{self.name}_unique_id", dataset=ATTRIBUTES + "NDArrayUniqueId", dtype_numpy="<i4"),
            Column(key=f"{self.name}_time", dataset=ATTRIBUTES + "NDArrayTimeStamp", dtype_numpy="<f8", units="s"),
        )

    def _close_file(self) -> None:
        self._acquisition = self._file = None
        self.hdf5.close_file()


def _finish(status: DeviceStatus) -> None:
    """Finish a status that something else may finish, or time out, at this very moment."""
    with contextlib.suppress(InvalidState):
        status.set_finished()
