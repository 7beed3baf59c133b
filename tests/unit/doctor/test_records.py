"""Tiled where it is not: nobody, nothing asked for, another server. system/test_doctor_command.py has a real one."""

from __future__ import annotations

import http.server
import threading
from typing import Any

from servers import LOOPBACK, free_ports

from bluesky_jit.doctor.finding import Finding
from bluesky_jit.doctor.records import look
from bluesky_jit.settings import load_settings


def found_at(uri: str) -> Finding:
    [found] = look(load_settings(environment={}, tiled={"uri": uri, "api_key": "secret"}))
    return found


def test_no_server_is_a_problem_and_no_address_a_warning() -> None:
    [port] = free_ports(1)
    assert found_at(f"http://{LOOPBACK}:{port}").verdict == "problem"
    assert found_at("").verdict == "warning"


def test_another_server_is_told_from_tiled() -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    with http.server.HTTPServer((LOOPBACK, 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = found_at(f"http://{LOOPBACK}:{server.server_port}")
        server.shutdown()
        thread.join()
    assert (found.verdict, "answers 404 (Not Found): is it Tiled?" in found.text) == ("problem", True)
