"""A console finds its settings and PVs, and leaves alone what the user has set."""

from __future__ import annotations

from pathlib import Path

import pytest

from bluesky_jit.beamline.environment import console_settings, loopback_epics
from bluesky_jit.settings import load_settings

SETTINGS = load_settings(
    environment={}, beamline={"ca_port": 5001, "pva_port": 5002}, epics={"ca_port": 5003, "pva_port": 5004}
)


def test_looks_on_this_machine_for_the_beamline_and_for_the_session() -> None:
    environment: dict[str, str] = {}
    loopback_epics(SETTINGS, environment)
    assert environment["EPICS_CA_ADDR_LIST"] == "127.0.0.1:5001 127.0.0.1:5003"
    assert environment["EPICS_CA_AUTO_ADDR_LIST"] == "NO"
    assert environment["EPICS_PVA_NAME_SERVERS"] == "127.0.0.1:5002 127.0.0.1:5004"


def test_leaves_a_users_own_search_alone() -> None:
    environment = {"EPICS_CA_AUTO_ADDR_LIST": "YES", "EPICS_PVA_ADDR_LIST": "10.1.2.255"}
    loopback_epics(SETTINGS, environment)
    assert environment.pop("EPICS_CA_MAX_ARRAY_BYTES")
    assert environment == {"EPICS_CA_AUTO_ADDR_LIST": "YES", "EPICS_PVA_ADDR_LIST": "10.1.2.255"}


def test_finds_the_beamline_simulated_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLUESKY_JIT_SETTINGS", raising=False)
    assert console_settings(tmp_path).beamline.camera == "SIM:DET:"
    (tmp_path / "jit-data").mkdir()
    (tmp_path / "jit-data" / "settings.toml").write_text('[beamline]\ncamera = "HERE:DET:"\n')
    assert console_settings(tmp_path).beamline.camera == "HERE:DET:"


def test_the_file_that_the_environment_names_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jit-data").mkdir()
    (tmp_path / "jit-data" / "settings.toml").write_text('[beamline]\ncamera = "HERE:DET:"\n')
    named = tmp_path / "mine.toml"
    named.write_text('[beamline]\ncamera = "MINE:DET:"\n')
    monkeypatch.setenv("BLUESKY_JIT_SETTINGS", str(named))
    assert console_settings(tmp_path).beamline.camera == "MINE:DET:"
