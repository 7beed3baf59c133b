"""Where the rows of files are that documents point at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from bluesky_jit.messages import Asset

Document = Mapping[str, Any]

AREA_DETECTOR = "/entry/data/data"
"""Where areaDetector's file plugin puts the frames, unless its layout was changed."""
ATTRIBUTES = "/entry/instrument/NDAttributes/"
SECONDS, NANOSECONDS = ATTRIBUTES + "NDArrayEpicsTSSec", ATTRIBUTES + "NDArrayEpicsTSnSec"
"""Where it puts the frames' time stamps, since 1990."""


def streamed_asset(resource: Document, first: int, count: int) -> Asset:
    """Return rows [first, first + count) of what a stream_resource names."""
    parameters = resource.get("parameters") or resource.get("resource_kwargs") or {}
    return Asset(
        uri=str(resource["uri"]) if "uri" in resource else _uri(resource),
        dataset=str(parameters.get("dataset", parameters.get("path", AREA_DETECTOR))),
        first=first,
        count=count,
        swmr=bool(parameters.get("swmr", False)),
    )


def frames_per_point(resource: Document, described: int) -> int:
    """Return how many frames one datum holds; described: as the data key's shape says."""
    return int((resource.get("resource_kwargs") or {}).get("frame_per_point") or described)


def filed_asset(resource: Document, datum: Document, n: int) -> Asset:
    """Return the n rows that a datum points at; raise ValueError for files of another kind than HDF5."""
    spec = str(resource.get("spec", ""))
    if "HDF5" not in spec:
        raise ValueError(
            f"data are in files of kind {spec!r}, which cannot be read live: let the detector write HDF5 (AD_HDF5)"
        )
    kwargs = resource.get("resource_kwargs") or {}
    pointer = datum.get("datum_kwargs") or {}
    swmr = bool(kwargs.get("swmr", "SWMR" in spec))
    if "column" in pointer:
        # NSLS-II's Zebra: a file of arrays, one of them all that was recorded of a sweep.
        return Asset(uri=_uri(resource), dataset=f"/{pointer['column']}", first=0, count=n, swmr=swmr, rows=n)
    times = spec.endswith("_TS")
    dataset = SECONDS if times else str(kwargs.get("dataset") or kwargs.get("path") or AREA_DETECTOR)
    return Asset(
        uri=_uri(resource),
        dataset=dataset,
        first=int(pointer.get("point_number", 0)) * n,
        count=n,
        swmr=swmr,
        nanoseconds=NANOSECONDS if times else "",
    )


def time_stamps_of(image: Asset) -> Asset:
    """Return where areaDetector puts the time stamps of frames, told of or not."""
    return Asset(
        uri=image.uri,
        dataset=SECONDS,
        first=image.first,
        count=image.count,
        swmr=image.swmr,
        nanoseconds=NANOSECONDS,
    )


def _uri(resource: Document) -> str:
    path = "/".join([str(resource.get("root", "")).rstrip("/"), str(resource["resource_path"]).lstrip("/")])
    return "file://localhost/" + quote(path.lstrip("/"))
