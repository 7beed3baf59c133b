"""Write frames to HDF5 files in ADCore's layout, as areaDetector's NDFileHDF5 does."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from caproto import ChannelData, SkipWrite

from sim_devices.frame import Frame
from sim_devices.plugin import Plugin
from sim_devices.pvs import Outbox, PVTable, show

logger = logging.getLogger(__name__)

WRITE_MODES = ("Single", "Capture", "Stream")
# NDArrayTimeStamp and NDArrayEpicsTSSec count from the EPICS epoch, 1990-01-01, as in areaDetector.
TIME_DATASETS = {
    "NDArrayUniqueId": np.int32,
    "NDArrayTimeStamp": np.float64,
    "NDArrayEpicsTSSec": np.uint32,
    "NDArrayEpicsTSnSec": np.uint32,
}
ATTRIBUTE_DATASETS = {"Angle": np.float64, "FrameType": np.int32, "PhantomTime": np.float64}
ATTRIBUTE_CHUNK = 1024


class FrameFile:
    """Append frames to one file: /entry/data/data with a row of NDAttributes for each frame."""

    def __init__(self, path: Path, shape: tuple[int, int], *, swmr: bool, flush_every: int = 1) -> None:
        self._flush_every = max(flush_every, 1)
        self.frames = 0
        self._file = h5py.File(path, "w-", libver="latest" if swmr else ("earliest", "v110"))
        entry = _group(self._file, "entry", "NXentry")
        instrument = _group(entry, "instrument", "NXinstrument")
        detector = _group(instrument, "detector", "NXdetector")
        attributes = _group(instrument, "NDAttributes", "NXcollection")
        self._data = detector.create_dataset(
            "data", (0, *shape), np.uint16, maxshape=(None, *shape), chunks=(1, *shape), track_times=False
        )
        self._data.attrs["signal"] = 1
        _group(entry, "data", "NXdata")["data"] = self._data
        self._attributes = {
            name: attributes.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(ATTRIBUTE_CHUNK,))
            for name, dtype in (TIME_DATASETS | ATTRIBUTE_DATASETS).items()
        }
        if swmr:
            self._file.swmr_mode = True

    def append(self, frame: Frame) -> bool:
        """Write one frame; say whether the file was flushed for its readers."""
        row = self.frames
        seconds, nanoseconds = frame.epics_time
        values = {
            "NDArrayUniqueId": frame.unique_id,
            "NDArrayTimeStamp": seconds + nanoseconds * 1e-9,
            "NDArrayEpicsTSSec": seconds,
            "NDArrayEpicsTSnSec": nanoseconds,
            **frame.attributes,
        }
        # Attributes first: a reader that sees the image has its angle too.
        for name, dataset in self._attributes.items():
            dataset.resize(row + 1, axis=0)
            dataset[row] = values[name]
        self._data.resize(row + 1, axis=0)
        self._data.id.write_direct_chunk((row, 0, 0), np.ascontiguousarray(frame.counts))
        self.frames = row + 1
        flushed = self._file.swmr_mode and self.frames % self._flush_every == 0
        if flushed:
            for dataset in (*self._attributes.values(), self._data):
                dataset.flush()
        return flushed

    def close(self) -> None:
        self._file.close()


def _group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


class HDF5Plugin(Plugin):
    """Serve the file plugin's PVs: Stream and Single mode, directories, numbering, SWMR (on unless switched off)."""

    def __init__(self, table: PVTable, outbox: Outbox, *, shape: tuple[int, int], directory: Path) -> None:
        super().__init__(table, outbox, port="HDF1", plugin_type="NDFileHDF5", shape=shape)
        self._shape = shape
        self._lock = threading.Lock()
        self._file: FrameFile | None = None
        self._unfinished: list[FrameFile] = []
        """Files that found no room on their disk: HDF5 ends the process when one is closed before there is some."""
        self._latest: Frame | None = None
        self._capturing = False
        self._captured = 0
        self._idle = asyncio.Event()
        self._idle.set()

        self._exists = table.integer("FilePathExists_RBV", int(directory.is_dir()), read_only=True)
        self._path = table.setting("FilePath", table.long_text, _with_slash(directory), on_put=self._put_path)
        self._name = table.setting("FileName", table.long_text, "frames")
        self._template = table.setting("FileTemplate", table.long_text, "%s%s_%6.6d.h5", on_put=_check_template)
        self._number = table.setting("FileNumber", table.integer, 0)
        self._full_name = table.long_text("FullFileName_RBV", "", read_only=True)
        self._create_directory = table.setting("CreateDirectory", table.integer, 0)
        self._auto_increment = table.setting("AutoIncrement", table.choice, "Yes")
        self._auto_save = table.setting("AutoSave", table.choice, "No")
        self._mode = table.setting("FileWriteMode", table.choice, "Single", choices=WRITE_MODES, on_put=_check_mode)
        self._num_capture = table.setting("NumCapture", table.integer, 1)
        self._num_captured = table.integer("NumCaptured_RBV", 0, read_only=True)
        self._capture = table.choice("Capture", "Done", choices=("Done", "Capture"), on_put=self._put_capture)
        self._capture_readback = table.choice("Capture_RBV", "Done", choices=("Done", "Capturing"), read_only=True)
        self._write_file = table.choice("WriteFile", "Done", choices=("Done", "Write"), on_put=self._put_write)
        table.choice("WriteFile_RBV", "Done", choices=("Done", "Writing"), read_only=True)
        self._write_status = table.choice(
            "WriteStatus", "Write OK", choices=("Write OK", "Write error"), read_only=True
        )
        self._write_message = table.long_text("WriteMessage", "", read_only=True)
        self._lazy_open = table.setting("LazyOpen", table.choice, "No")
        self._swmr = table.setting("SWMRMode", table.choice, "On", choices=("Off", "On"))
        self._swmr_active = table.choice("SWMRActive_RBV", "Off", choices=("Off", "Active"), read_only=True)
        self._swmr_flushes = table.integer("SWMRCbCounter_RBV", 0, read_only=True)
        table.choice("SWMRSupported_RBV", "Supported", choices=("Not Supported", "Supported"), read_only=True)
        self._flush_every = table.setting("NumFramesFlush", table.integer, 1)
        self._add_unused(table)

    def _add_unused(self, table: PVTable) -> None:
        """Serve what ophyd's HDF5Plugin reads as configuration; none of it changes how files are written."""
        table.setting("DeleteDriverFile", table.choice, "No")
        table.setting("FileFormat", table.choice, "HDF5", choices=("HDF5",))
        table.setting("Compression", table.choice, "None", choices=("None",))
        table.setting("StoreAttr", table.choice, "Yes")
        table.setting("StorePerform", table.choice, "No")
        for name in (
            "BoundaryAlign",
            "BoundaryThreshold",
            "DataBitsOffset",
            "NumColChunks",
            "NumDataBits",
            "NumExtraDims",
        ):
            table.setting(name, table.integer, 0)
        for name in ("NumFramesChunks", "NumRowChunks", "SZipNumPixels", "ZLevel", "NDAttributeChunk"):
            table.setting(name, table.integer, 0)
        for axis in "XYN":
            table.text(f"ExtraDimName{axis}_RBV", read_only=True)
            table.setting(f"ExtraDimSize{axis}", table.integer, 1)
        for name in ("IOSpeed", "RunTime"):
            table.number(name, read_only=True)

    def handle(self, frame: Frame) -> dict[ChannelData, Any]:
        """Write the frame if capturing; a disk that fails ends the capture, never the acquisition."""
        with self._lock:
            self._latest = frame
            try:
                if self._mode.value == "Single" and self._auto_save.yes:
                    return self._write_single(frame)
                return self._write_streamed(frame) if self._capturing else {}
            except OSError as error:
                logger.exception("frame %d was not written", frame.unique_id)
                if self._file is not None:
                    self._unfinished.append(self._file)
                    self._file = None
                return self._close() | self._failed(error)

    def close(self) -> None:
        """Close the file, so that it is whole whatever ends the process."""
        with self._lock:
            self._close()
            for file in self._unfinished:
                file.close()

    def _write_streamed(self, frame: Frame) -> dict[ChannelData, Any]:
        values = {} if self._file is not None else self._open()
        if self._file is None:
            return values
        flushed = self._file.append(frame)
        self._captured += 1
        values[self._num_captured] = self._captured
        if flushed:
            values[self._swmr_flushes] = self._captured
        wanted = self._num_capture.value
        if wanted > 0 and self._captured >= wanted:
            values |= self._close()
        return values

    def _write_single(self, frame: Frame) -> dict[ChannelData, Any]:
        values = self._open(swmr=False)
        if self._file is not None:
            self._file.append(frame)
            self._file.close()
            self._file = None
        return values

    def _open(self, *, swmr: bool | None = None) -> dict[ChannelData, Any]:
        """Make the next file; return the PVs that say so."""
        swmr = self._swmr.yes if swmr is None else swmr
        number = self._number.value
        path = Path(self._template.value % (self._path.value, self._name.value, number))
        self._file = FrameFile(path, self._shape, swmr=swmr, flush_every=self._flush_every.value)
        values: dict[ChannelData, Any] = {
            self._full_name: str(path),
            self._write_status: "Write OK",
            self._write_message: "",
            self._swmr_active: "Active" if swmr else "Off",
        }
        if self._auto_increment.yes:
            values |= {self._number.setpoint: number + 1, self._number.readback: number + 1}
        return values

    def _close(self) -> dict[ChannelData, Any]:
        self._capturing = False
        if self._file is not None:
            self._file.close()
            self._file = None
        self.outbox.call(self._idle.set)
        return {
            self._capture: "Done",
            self._capture_readback: "Done",
            self._swmr_active: "Off",
        }

    def _failed(self, error: Exception) -> dict[ChannelData, Any]:
        return {self._write_status: "Write error", self._write_message: str(error)[:255]}

    async def _put_path(self, requested: str) -> str:
        path = Path(requested)
        depth = self._create_directory.value
        # A negative CreateDirectory lets the plugin make that many of the last folders, as in ADCore.
        if depth < 0 and not path.is_dir() and any(parent.is_dir() for parent in path.parents[:-depth]):
            path.mkdir(parents=True, exist_ok=True)
        await show(self._exists, int(path.is_dir()))
        return _with_slash(path)

    async def _put_capture(self, requested: str) -> str:
        if requested == "Done":
            await self._show_all(await asyncio.to_thread(self._locked, self._close))
            return requested
        if self._mode.value != "Stream":
            raise ValueError(f"FileWriteMode is {self._mode.value}: set it to Stream before Capture")
        if not self._capturing:
            await self._begin()
        # A busy record: a put with completion ends when the capture does.
        await self._idle.wait()
        raise SkipWrite

    async def _begin(self) -> None:
        try:
            values = {} if self._lazy_open.yes else await asyncio.to_thread(self._locked, self._open)
        except OSError as error:
            logger.exception("the file plugin cannot begin to capture")
            await self._show_all(self._failed(error))
            raise
        self._captured = 0
        self._idle.clear()
        self._capturing = True
        counters = {self._num_captured: 0, self._swmr_flushes: 0}
        await self._show_all(values | counters | {self._capture: "Capture", self._capture_readback: "Capturing"})

    async def _put_write(self, requested: str) -> str:
        """Write the latest frame to a file of its own."""
        latest = self._latest
        if requested == "Done":
            return requested
        if latest is None or self._capturing:
            reason = "a capture is running" if self._capturing else "no frame has arrived"
            raise ValueError(f"{reason}: WriteFile writes the latest frame in Single mode")
        await self._show_all(await asyncio.to_thread(self._locked, self._write_single, latest))
        return "Done"

    def _locked(self, function: Any, *arguments: Any) -> dict[ChannelData, Any]:
        with self._lock:
            return function(*arguments)

    async def _show_all(self, values: dict[ChannelData, Any]) -> None:
        for channel, value in values.items():
            await show(channel, value)


async def _check_mode(mode: str) -> str:
    if mode == "Capture":
        raise ValueError("FileWriteMode Capture buffers frames in memory, which is not simulated: use Stream or Single")
    return mode


async def _check_template(template: str) -> str:
    try:
        _ = template % ("folder/", "name", 0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"FileTemplate {template!r} does not take a folder, a name and a number: {error}") from error
    return template


def _with_slash(path: Path) -> str:
    return str(path).rstrip("/") + "/"
