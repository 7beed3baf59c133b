"""Find the runs in Tiled: raw runs in container `raw`, what was reconstructed from them in container `jit`."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from tiled.client import from_uri
from tiled.client.utils import ClientError
from tiled.structures.core import Spec

from bluesky_jit.settings_sections import TiledSettings

RAW = "raw"
JIT = "jit"
CONNECT_S = 2.0
SERVER_FAULT = 500
"""HTTP's first status for what is the server's own fault."""
LEAST_UID = 5
"""Characters of a uid that the catalog looks for."""


def connect(settings: TiledSettings) -> Any:
    """Return a Tiled client of the server that the settings name."""
    if not settings.uri:
        raise ValueError("tiled.uri is empty: set it to the address of a Tiled server, such as http://127.0.0.1:8000")
    return from_uri(settings.uri, api_key=settings.api_key or None)


def listens(uri: str) -> bool:
    """Tell whether anything listens at a server's address; Tiled's client would try for half a minute."""
    parts = urlsplit(uri)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", port), timeout=CONNECT_S):
            return True
    except OSError:
        return False


def connect_now(settings: TiledSettings) -> Any:
    """Return a Tiled client; raise OSError in one sentence when there is no answer, and at once."""
    place = address(settings.uri)
    if settings.uri and not listens(settings.uri):
        raise ConnectionError(f"no answer from Tiled at {place}: check tiled.uri, and that it runs")
    try:
        with answering(place):
            return connect(settings)
    except RuntimeError as error:
        # Tiled's own word for a missing key, or a wrong one, fills a screen.
        if settings.api_key:
            raise OSError(f"Tiled at {place} did not take the key that was given: check tiled.api_key") from error
        raise OSError(f"Tiled at {place} wants a key: give tiled.api_key") from error


@contextmanager
def answering(place: str) -> Iterator[None]:
    """Raise OSError in one sentence for whatever goes wrong between us and the Tiled server."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status >= SERVER_FAULT:
            raise OSError(
                f"Tiled at {place} could not give what was asked ({status}): look into its log; often it cannot read "
                "the detector's files"
            ) from error
        raise OSError(f"Tiled at {place} refused ({without_key(str(error))}): check tiled.api_key") from error
    except httpx.HTTPError as error:
        reason = without_key(str(error))
        raise OSError(f"no answer from Tiled at {place} ({reason}): check tiled.uri, and that it runs") from error


def raw_catalog(client: Any) -> Any:
    """Return the catalog of raw runs: `[-1]`, `[scan_id]` and `["partial uid"]` work on it."""
    return _catalog(client, RAW)


def find_run(catalog: Any, which: str, place: str) -> Any:
    """Return a run by its uid, the beginning of it, its scan id, or -1 for the last; raise ValueError without one."""
    # A number is a scan id before it is the beginning of a uid.
    is_number = which.removeprefix("-").isdecimal()
    keys: list[Any] = [int(which)] if is_number and int(which) else []
    if len(which) >= LEAST_UID and not which.startswith("-"):
        keys.append(which)
    for key in keys:
        try:
            return catalog[key]
        except LookupError:
            continue
    raise ValueError(
        f"Tiled at {place} has no run {which!r}: give a scan id, -1 for the last run, or at least {LEAST_UID} "
        "characters of a uid; for a file, check its path"
    )


def jit_catalog(client: Any) -> Any:
    """Return the catalog of linked runs; the start key `raw_run` names the raw run of each."""
    return _catalog(client, JIT)


def _catalog(client: Any, key: str) -> Any:
    try:
        return client[key]
    except KeyError:
        pass
    try:
        client.create_container(key, specs=[Spec("CatalogOfBlueskyRuns", version="3.0")])
    except ClientError as error:
        # Somebody else may have made it in the meantime.
        if error.response.status_code != 409:
            raise
    return client[key]


def spill_directory(settings: TiledSettings) -> Path:
    """Return the folder where records for this server wait."""
    root = Path(settings.spill_directory) if settings.spill_directory else _cache() / "bluesky_jit" / "tiled"
    # One for each server: records for one are never sent to another.
    return root / hashlib.sha256(address(settings.uri).encode()).hexdigest()[:12]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def address(uri: str) -> str:
    """Return a server's address as it may be shown and recorded: without what may hold a key or password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def without_key(text: str, key: str = "") -> str:
    """Return a message, such as a client's error, without the keys in its addresses and headers, nor this one."""
    text = re.sub(r"(api_key=|Apikey )[^&\s'\"]+", r"\1…", text)
    return text.replace(key, "…") if key else text
