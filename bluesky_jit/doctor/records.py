"""Tiled: whether it answers, takes the key, lets results be written, and can read the camera's files.

Asked over plain HTTP: Tiled's client takes seconds to load, and tries for half a minute where nobody answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from bluesky_jit.archive import JIT, RAW, address, listens, without_key
from bluesky_jit.doctor.finding import Finding, fine, problem, warning
from bluesky_jit.settings import Settings

SUBJECT, FILES = "Tiled", "Tiled files"
ANSWER_S = 5.0
REFUSED = (401, 403)
MALFORMED = 422
"""HTTP's status for a request that is allowed but lacks what it is about."""
NEWEST = 5
"""Raw runs that are looked at for a camera's file, from the newest on."""
IMAGE_DIMENSIONS = 3


def look(settings: Settings) -> list[Finding]:
    """Ask the server, then read the first frame of the newest run that has one in a file."""
    tiled = settings.tiled
    if not tiled.uri:
        text = (
            "tiled.uri is empty: neither runs nor slices are recorded. Set it to your server; `bluesky-jit sim` has one"
        )
        return [warning(SUBJECT, text)]
    place = address(tiled.uri)
    if not listens(tiled.uri):
        return [problem(SUBJECT, f"no answer from Tiled at {place}: start it, or correct tiled.uri")]
    headers = {"Authorization": f"Apikey {tiled.api_key}"} if tiled.api_key else {}
    base = tiled.uri.rstrip("/").removesuffix("/api/v1") + "/api/v1/"
    with httpx.Client(base_url=base, headers=headers, timeout=ANSWER_S) as client:
        try:
            if (refusal := _refusal(client, place, key=tiled.api_key)) is not None:
                return [refusal]
            return [fine(SUBJECT, f"{place} answers and lets results be written to `{JIT}`"), _readback(client)]
        except httpx.HTTPError as error:
            reason = without_key(str(error), tiled.api_key) or type(error).__name__
            return [problem(SUBJECT, f"{place} listens but does not answer ({reason}): is it Tiled? Correct tiled.uri")]


def _refusal(client: httpx.Client, place: str, *, key: str) -> Finding | None:
    """Ask to write, without saying what: what is allowed is then told from what is not, and nothing is written."""
    answer = client.post("metadata/", json={})
    detail = without_key(_detail(answer), key)
    if answer.status_code in REFUSED:
        what = "does not take the key" if key else "wants a key to write"
        return problem(SUBJECT, f"{place} {what}: set tiled.api_key to one that may write ({detail})")
    if answer.status_code != MALFORMED:
        told = f"{answer.status_code} ({detail})"
        return problem(SUBJECT, f"{place} answers {told}: is it Tiled? Correct tiled.uri")
    return None


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


def _readback(client: httpx.Client) -> Finding:
    """Read a frame through Tiled: what its readable storage does not cover, it registers but cannot give."""
    found = next(_pictures(client), None)
    if found is None:
        return fine(FILES, "no run with the camera's files is recorded yet to try: scan, then again")
    run, file, block = found
    answer = client.get(block, headers={"Accept": "application/octet-stream"})
    if answer.is_success:
        return fine(FILES, f"frames of run {run[:8]} are read through Tiled")
    return problem(
        FILES,
        f"Tiled cannot read {file} of run {run[:8]} ({answer.status_code}): add its folder to Tiled's "
        "readable_storage, and mount it where Tiled runs",
    )


def _pictures(client: httpx.Client) -> Iterator[tuple[str, str, str]]:
    """Yield a run, a file and the address of a first block of pictures, from the newest run on."""
    for run in _children(client, RAW, sort="-", **{"page[limit]": NEWEST}):
        for path, attributes, links in _arrays(client, f"{RAW}/{run['id']}"):
            files = [asset["data_uri"] for source in attributes["data_sources"] or () for asset in source["assets"]]
            dimensions = len(attributes["structure"]["shape"])
            if files and dimensions >= IMAGE_DIMENSIONS:
                yield path.split("/")[1], files[0], links["block"].format(*[0] * dimensions)


def _arrays(client: httpx.Client, path: str) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    for child in _children(client, path, include_data_sources="true"):
        inner, attributes = f"{path}/{child['id']}", child["attributes"]
        if attributes["structure_family"] == "container":
            yield from _arrays(client, inner)
        elif attributes["structure_family"] == "array":
            yield inner, attributes, child["links"]


def _children(client: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"search/{path}", params=query)
    # Nobody has recorded anything yet.
    return answer.json()["data"] if answer.is_success else []
