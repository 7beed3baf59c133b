"""Run an embedded Tiled server: the archive of the simulated beamline, on loopback, in one folder.

Its key is taken from the environment (TILED_SINGLE_USER_API_KEY), since every user of a machine sees command lines;
without one a random key is part of the address that is printed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import threading
from pathlib import Path

from tiled.client import from_uri
from tiled.server import SimpleTiledServer
from tiled.structures.core import Spec

RAW = "raw"
API_KEY_VARIABLE = "TILED_SINGLE_USER_API_KEY"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim_devices.archive", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="where databases, arrays and logs are kept")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--readable",
        type=Path,
        action="append",
        default=[],
        help="folder of detector files; may be repeated",
    )
    return parser.parse_args(arguments)


def make_catalogs(address: str, key: str) -> None:
    """Make the container that runs go to; its spec makes `[-1]`, `[scan_id]` and `["partial uid"]` work on it."""
    # Not as part of the address: the server logs addresses.
    root = from_uri(address, api_key=key)
    if RAW not in root:
        root.create_container(RAW, specs=[Spec("CatalogOfBlueskyRuns", version="3.0")])


def main(arguments: list[str] | None = None) -> None:
    """Serve until interrupted; print `ready` and the address once requests are answered."""
    options = parse_arguments(arguments)
    # Whatever comes while the server starts, it is ended in good order.
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    options.directory.mkdir(parents=True, exist_ok=True)
    given = os.environ.get(API_KEY_VARIABLE)
    key = given or secrets.token_hex(16)
    readable = [folder.resolve() for folder in options.readable]
    with SimpleTiledServer(options.directory, api_key=key, port=options.port, readable_storage=readable) as server:
        address = f"http://127.0.0.1:{server.port}"
        make_catalogs(address, key)
        # Without the key, which is the caller's already; a key that was made up here is part of the address.
        sys.stdout.write(f"ready {address if given else server.web_ui_link}\n")
        sys.stdout.flush()
        ended.wait()


if __name__ == "__main__":
    main()
