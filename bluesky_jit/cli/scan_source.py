"""Find the scan that a command line names: a file, a folder, or a run that Tiled has recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.logging import RichHandler

from bluesky_jit.intake.sources import open_scan
from bluesky_jit.intake.stored_scan import StoredScan
from bluesky_jit.settings import Settings

if TYPE_CHECKING:
    from bluesky_jit.intake.recorded_frames import RecordedScan

Sections = Mapping[str, Mapping[str, Any]]


class Load(Protocol):
    """Return the settings that a command line asks for, which come before the defaults given here."""

    def __call__(self, defaults: Sections = ...) -> Settings: ...


def find_scan(source: str, settings: Settings) -> AbstractContextManager[StoredScan | RecordedScan]:
    """Open the file or folder of that path, or else the run of that uid or scan id."""
    path = Path(source)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return nullcontext(open_scan(path, settings))
    if not settings.tiled.uri:
        raise ValueError(
            f"there is no file {source}, and no Tiled server to look for a run {source} in: check the path, or set "
            "tiled.uri"
        )
    # Tiled's client takes a second to import, which files need not wait for.
    from bluesky_jit.intake.recorded import recorded_scan

    return recorded_scan(source, settings)


@contextmanager
def log_above(console: Console) -> Iterator[None]:
    """Let what is logged scroll above progress bars instead of through them."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    root.handlers[:] = [RichHandler(console=console, show_time=False, show_path=False, highlighter=None)]
    try:
        yield
    finally:
        root.handlers[:] = handlers
