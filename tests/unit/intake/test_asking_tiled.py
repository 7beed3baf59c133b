"""When Tiled is asked for frames, how long it is waited for, and what is said of a server that does not help."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import h5py
import httpx
import numpy as np
import pytest
from filed_frames import filed_frames

from bluesky_jit.archive import _ask_once
from bluesky_jit.intake import tiled_rows
from bluesky_jit.intake.frames import FramesNotReady, RunFrames
from bluesky_jit.intake.tiled_rows import TiledRows
from bluesky_jit.messages import Asset, AssetFrames, Record, RunStart, RunStop
from bluesky_jit.session.run import LiveRun
from bluesky_jit.settings import load_settings
from bluesky_jit.settings_sections import TiledSettings

KEY = "a-key-that-nobody-may-see"
SHORT_S = 0.1


class Answers(BaseHTTPRequestHandler):
    """Answer /fault with a fault, other paths with their own name, and /slow not before the test is over."""

    over = threading.Event()
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/slow"):
            self.over.wait(20.0)
        self.send_response(500 if self.path.startswith("/fault") else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Answers.over.clear()
    Answers.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        Answers.over.set()
        server.shutdown()
        thread.join()


@contextmanager
def dumb_server() -> Iterator[tuple[TiledSettings, socket.socket]]:
    """Listen where nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield TiledSettings(uri=f"http://127.0.0.1:{listening.getsockname()[1]}", api_key=KEY), listening


def was_asked(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def announced(path: Path, host: str = "localhost") -> AssetFrames:
    image = Asset(
        uri=f"file://{host}{path}",
        dataset="/data",
        first=0,
        count=2,
        swmr=True,
        record=Record(stream="flats", key="camera", first=0),
    )
    return filed_frames(image, run_uid="r", kind="flat")


# ── whom frames are asked of ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ended", [False, True])
def test_a_file_that_may_still_come_is_waited_for_and_tiled_is_asked_once_the_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    monkeypatch.setattr(tiled_rows, "ANSWER_S", SHORT_S)
    with dumb_server() as (tiled, listening):
        start = RunStart(run_uid="r", scan_id=1, plan_name="", time_s=0.0, tomo={})
        live = LiveRun(start, replace(load_settings(environment={}), tiled=tiled))
        live.stop = RunStop(run_uid="r", time_s=1.0, exit_status="success") if ended else None
        run = live.frames
        with pytest.raises(FramesNotReady, match="no answer from Tiled" if ended else "cannot be opened yet"):
            run.frames(announced(tmp_path / "later.h5"))
        assert was_asked(listening) == ended
        with h5py.File(tmp_path / "later.h5", "w", libver="latest") as file:
            file["data"] = np.full((2, 4, 6), 9, dtype=np.uint16)
        assert len(run.frames(announced(tmp_path / "later.h5"))) == 2
        run.close()


@pytest.mark.parametrize(("folder", "host"), [("elsewhere", "localhost"), ("", "detector.example")])
def test_frames_in_a_folder_that_is_not_here_are_asked_of_tiled_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, host: str
) -> None:
    monkeypatch.setattr(tiled_rows, "ANSWER_S", SHORT_S)
    with dumb_server() as (settings, _):
        run = RunFrames("r", tiled=settings)
        path = tmp_path / folder / "x.h5"
        with pytest.raises(FramesNotReady, match=rf"file://{host}{path} is not here: no answer from Tiled"):
            run.frames(announced(path, host))
        run.close()


# ── how long it is waited for ────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_stalls_is_waited_for_once_and_then_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiled_rows, "ANSWER_S", SHORT_S)
    monkeypatch.setattr(tiled_rows, "ASK_AGAIN_S", 1000.0)
    asset = announced(Path("/x.h5"), "detector.example").image
    with dumb_server() as (settings, listening):
        rows = TiledRows("r", settings)
        texts = []
        for _ in range(2):
            with pytest.raises(FramesNotReady) as refused:
                rows.read(asset)
            texts.append(str(refused.value))
        # Whether anybody listens, and the question.
        assert [was_asked(listening) for _ in range(3)] == [True, True, False]
        rows.close()
    assert texts[0] == texts[1]
    assert settings.uri in texts[0]
    assert "check tiled.uri, and that it runs" in texts[0]
    assert KEY not in texts[0]


def test_what_a_server_has_is_fetched_although_it_has_just_refused_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def had(rows: TiledRows, asset: Asset, record: Record, wanted: np.ndarray | None) -> np.ndarray:
        if record.first + asset.count > 1:
            raise FramesNotReady("has 1 of 2 rows", available=1)
        return np.ones((asset.count, 4, 6))

    monkeypatch.setattr(TiledRows, "_read", had)
    rows = TiledRows("r", TiledSettings(uri="http://127.0.0.1:9"))
    image = announced(Path("/x.h5"), "detector.example").image
    with pytest.raises(FramesNotReady, match="has 1 of 2 rows"):
        rows.read(image)
    assert len(rows.read(image.part(0, 1))) == 1
    with pytest.raises(FramesNotReady, match="has 1 of 2 rows"):
        rows.read(image.part(1, 1))
    angles = replace(image, count=1, record=Record(stream="flats", key="angle", first=0))
    assert len(rows.read(angles)) == 1


def test_no_question_is_repeated_that_was_not_answered(server: str) -> None:
    with closing(httpx.Client(timeout=SHORT_S)) as client:
        _ask_once(client, "http://tiled:8000", SHORT_S)
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"{server}/slow")
        with pytest.raises(TimeoutError, match=r"no answer from Tiled at http://tiled:8000 within 0.1 s: check"):
            client.get(f"{server}/slow")
    assert Answers.asked == ["/slow"]


def test_a_fault_of_the_server_is_told_at_once_and_what_is_answered_may_be_asked_again(server: str) -> None:
    with closing(httpx.Client(timeout=20.0)) as client:
        _ask_once(client, "http://tiled:8000", 20.0)
        with pytest.raises(
            OSError, match=r"Tiled at http://tiled:8000 could not give what was asked \(500\): look into"
        ):
            client.get(f"{server}/fault")
        assert [client.get(f"{server}/well").status_code for _ in range(2)] == [200, 200]


def test_a_host_that_nobody_knows_is_named_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # Some resolvers take many seconds to say so.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    rows = TiledRows("r", TiledSettings(uri="http://no.such.host.invalid:8000", api_key=KEY))
    with pytest.raises(
        FramesNotReady, match=r"no answer from Tiled at http://no.such.host.invalid:8000: check tiled.uri"
    ):
        rows.read(announced(Path("/x.h5"), "detector.example").image)
