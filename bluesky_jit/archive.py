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
from tiled.client import from_context
from tiled.client.context import Context
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


def connect(settings: TiledSettings, *, answer_s: float | None = None) -> Any:
    """Return a Tiled client of the server that the settings name; answer_s: as for `connect_now`."""
    if not settings.uri:
        raise ValueError("tiled.uri is empty: set it to the address of a Tiled server, such as http://127.0.0.1:8000")
    timeout = None if answer_s is None else httpx.Timeout(answer_s)
    context, parts = Context.from_any_uri(settings.uri, api_key=settings.api_key or None, timeout=timeout)
    try:
        if answer_s is not None:
            _ask_once(context.http_client, address(settings.uri), answer_s)
        return from_context(context, node_path_parts=parts)
    except BaseException:
        context.close()
        raise


def listens(uri: str) -> bool:
    """Tell whether anything listens at a server's address; Tiled's client would try for half a minute."""
    parts = urlsplit(uri)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", port), timeout=CONNECT_S):
            return True
    except OSError:
        return False


def connect_now(settings: TiledSettings, *, answer_s: float | None = None) -> Any:
    """Return a Tiled client; raise OSError in one sentence when there is no answer, and at once.

    answer_s: how long any answer may be waited for, from now on; Tiled's client repeats its questions for 45 s.
    """
    place = address(settings.uri)
    if settings.uri and not listens(settings.uri):
        raise ConnectionError(f"no answer from Tiled at {place}: check tiled.uri, and that it runs")
    try:
        with answering(place):
            if answer_s is not None:
                _require_answer(place, answer_s)
            return connect(settings, answer_s=answer_s)
    except RuntimeError as error:
        # Tiled's own word for a missing key, or a wrong one, fills a screen.
        if settings.api_key:
            raise OSError(f"Tiled at {place} did not take the key that was given: check tiled.api_key") from error
        raise OSError(f"Tiled at {place} wants a key: give tiled.api_key") from error


def _require_answer(place: str, answer_s: float) -> None:
    """Raise httpx.HTTPError when a server stalls: Tiled's client repeats its first questions, whatever it is told."""
    parts = urlsplit(place)
    path = parts.path.partition("/api")[0].rstrip("/") + "/api/v1/"
    httpx.get(parts._replace(path=path).geturl(), timeout=answer_s, follow_redirects=True)


def _ask_once(client: httpx.Client, place: str, answer_s: float) -> None:
    """Let a client of Tiled repeat no question: raise OSError in its place."""
    unanswered: set[httpx.URL] = set()

    def ask(request: httpx.Request) -> None:
        if request.url in unanswered:
            raise TimeoutError(
                f"no answer from Tiled at {place} within {answer_s:g} s: check that it runs, and its log"
            )
        unanswered.add(request.url)

    def hear(response: httpx.Response) -> None:
        unanswered.discard(response.request.url)
        if response.status_code >= SERVER_FAULT:
            raise OSError(_server_fault(place, response.status_code))

    client.event_hooks = {"request": [ask], "response": [hear]}


def _server_fault(place: str, status: int) -> str:
    return (
        f"Tiled at {place} could not give what was asked ({status}): look into its log; often it cannot read the "
        "detector's files"
    )


@contextmanager
def answering(place: str) -> Iterator[None]:
    """Raise OSError in one sentence for whatever goes wrong between us and the Tiled server."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status >= SERVER_FAULT:
            raise OSError(_server_fault(place, status)) from error
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
