"""Settings: defaults < file < environment < keywords, and clear words for what does not fit."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest

from bluesky_jit.settings import Settings, load_settings


def test_later_places_win(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[learn]\nseed = 1\nbatch = 16\nbuffer = 100\n")
    environment = {"BLUESKY_JIT_LEARN__BATCH": "8", "BLUESKY_JIT_LEARN__BUFFER": "90"}
    settings = load_settings(file, environment=environment, learn={"buffer": 80})
    assert (settings.learn.seed, settings.learn.batch, settings.learn.buffer) == (1, 8, 80)
    assert settings.learn.preset == Settings().learn.preset


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "beamline.toml"
    file.write_text('[epics]\nprefix = "X:"\n')
    assert load_settings(environment={"BLUESKY_JIT_SETTINGS": str(file)}).epics.prefix == "X:"


def test_text_becomes_the_settings_type() -> None:
    environment = {
        "BLUESKY_JIT_GEOMETRY__PIXEL_MM": "0.2",
        "BLUESKY_JIT_EPICS__CONTROLS": "off",
        "BLUESKY_JIT_SLICES__SIZE": "none",
    }
    settings = load_settings(environment=environment)
    assert settings.geometry.pixel_mm == 0.2
    assert settings.epics.controls is False
    assert settings.slices.size is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lern": {}}, "no section 'lern'"),
        ({"learn": {"sed": 1}}, "no setting learn.sed"),
        ({"learn": {"seed": "many"}}, "learn.seed is 'many'"),
        ({"tomo": {"filter": "ramp"}}, "tomo.filter is 'ramp': give one of ram-lak"),
        ({"epics": {"controls": "maybe"}}, "give true or false"),
        ({"learn": 3}, "give a table of settings"),
        ({"slices": {"updates_per_s": 0}}, "slices.updates_per_s is 0.0: give a number above 0"),
        ({"tomo": {"turns": "-1"}}, "tomo.turns is -1.0: give a number above 0"),
        (
            {"tomo": {"zinger_threshold": -0.1}},
            "tomo.zinger_threshold is -0.1: give a number above 0, or 0 to leave it",
        ),
        ({"tomo": {"filter_cutoff": 1.5}}, "tomo.filter_cutoff is 1.5: give a number above 0 and at most 1"),
        ({"tomo": {"hardening": "1;2"}}, "tomo.hardening is '1;2': give numbers, like"),
        ({"tomo": {"hardening": 1.2}}, "tomo.hardening is 1.2: give numbers, like"),
        ({"tomo": {"turns": "nan"}}, "give a finite number"),
        ({"epics": {"ca_port": 65536}}, "epics.ca_port is 65536: give a port from 1 to 65535"),
        ({"epics": {"ca_port": 0}}, "epics.ca_port is 0: give a port from 1 to 65535"),
        ({"epics": {"pva_port": 65535}}, "epics.pva_port is 65535: give a port from 1 to 65534"),
        ({"epics": {"interface": "banana"}}, "keywords: epics.interface is 'banana': give the IPv4 address"),
        ({"beamline": {"camera": ""}}, "beamline.camera is '': give the prefix of its PVs"),
        ({"beamline": {"stage": " "}}, "beamline.stage is ' ': give the prefix of its PVs"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_settings(environment={}, **changes)


@pytest.mark.parametrize("value", [[1, 0.05], "1, 0.05", "1,0.05,"])
def test_a_list_of_numbers_comes_from_a_file_or_as_text(value: object) -> None:
    assert load_settings(environment={}, tomo={"hardening": value}).tomo.hardening == (1.0, 0.05)


def test_the_tiled_key_is_in_no_printout() -> None:
    settings = load_settings(environment={}, tiled={"uri": "http://tiled:8000", "api_key": "secret"})
    assert settings.tiled.api_key == "secret"
    assert "secret" not in repr(settings)


def test_a_key_in_the_address_is_taken_out_of_it() -> None:
    tiled = load_settings(environment={}, tiled={"uri": "http://tiled:8000/api?a=b&api_key=secret"}).tiled
    assert (tiled.uri, tiled.api_key) == ("http://tiled:8000/api?a=b", "secret")
    assert "secret" not in repr(tiled)


@pytest.mark.parametrize(
    "address",
    [
        *("banana", "", "0.0.0.0:*", "*:*", "*:5577", "0.0.0.0:5577 ", "0.0.0.0:5577x", "0.0.0.0:+5577", "h:1\n", ":1"),
        *(f"127.0.0.1:{port}" for port in (99999, 65536, -1, 0, "", "٥")),
    ],
)
@pytest.mark.parametrize("key", ["publish_address", "subscribe_address"])
def test_an_address_is_a_host_and_a_port(key: str, address: str) -> None:
    words = f"serve.{key} is {address!r}: give HOST:PORT with a port from 1 to 65535"
    with pytest.raises(ValueError, match=re.escape(words)):
        load_settings(environment={}, serve={key: address})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "0.0.0.0:65535", "beamline-3.example:5577", "localhost:5577"])
def test_an_address_that_fits_is_taken(address: str) -> None:
    assert load_settings(environment={}, serve={"publish_address": address}).serve.publish_address == address


@pytest.mark.parametrize(
    "uri",
    [
        "http://[bad",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "127.0.0.1:8000",
        "ftp://tiled",
        "http://",
        " http://a",
        "http://a b",
        "http://a..b",
        "http://me:hidden@[bad?api_key=hidden",
        "http://me:hidden@tiled:x#hidden",
    ],
)
def test_tiled_is_at_a_web_address(uri: str) -> None:
    with pytest.raises(ValueError, match=r"keywords: tiled.uri is .*: give a server's address") as caught:
        load_settings(environment={}, tiled={"uri": uri})
    assert "hidden" not in str(caught.value)


def test_a_key_is_what_a_header_can_carry_and_its_fault_does_not_show_it() -> None:
    assert load_settings(environment={}, tiled={"api_key": " secret\n"}).tiled.api_key == "secret"
    for key in ("hiddené", "hidden key", "hidden\nkey", "hidden\x7f"):
        for tiled in ({"api_key": key}, {"uri": f"http://tiled:8000?api_key={quote(key)}"}):
            with pytest.raises(ValueError, match=r"tiled.api_key holds a blank, or a character that is not") as caught:
                load_settings(environment={}, tiled=tiled)
            assert "hidden" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_settings(tmp_path / "none.toml", environment={})


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("[learn\n")
    with pytest.raises(ValueError, match=r"broken\.toml is not valid TOML"):
        load_settings(file, environment={})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"broken\.toml is not valid TOML"):
        load_settings(file, environment={})


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        load_settings(tmp_path, environment={})


def test_a_region_takes_the_numbers_that_describe_it() -> None:
    learn = load_settings(environment={}, learn={"region": "cylinder", "region_mm": "20,-5,8"}).learn
    assert (learn.region, learn.region_mm) == ("cylinder", (20.0, -5.0, 8.0))
    with pytest.raises(
        ValueError, match=r"learn.region_mm is \(1.0, 2.0\) and learn.region box: give 6 numbers: x low"
    ):
        load_settings(environment={}, learn={"region": "box", "region_mm": [1, 2]})
    with pytest.raises(ValueError, match=r"learn.region_mm is \(1.0,\) and learn.region sample: give none"):
        Settings().changed({"learn": {"region_mm": (1,)}})


def test_a_network_needs_two_splits_to_learn_one_from_the_other() -> None:
    with pytest.raises(ValueError, match=r"learn\.splits is 1: give at least 2"):
        load_settings(environment={}, learn={"splits": 1})


@pytest.mark.parametrize(("key", "value", "most"), [("batch", 10**7, 1024), ("buffer", 10**12, 65536)])
def test_what_no_memory_could_hold_is_refused(key: str, value: int, most: int) -> None:
    with pytest.raises(ValueError, match=rf"learn\.{key} is {value}: give at most {most}, for time and memory"):
        load_settings(environment={}, learn={key: value})
    assert getattr(load_settings(environment={}, learn={key: most}).learn, key) == most


def test_names_in_the_environment_are_parted_by_commas() -> None:
    environment = {"BLUESKY_JIT_INTAKE__PLANS": "scan, list_scan"}
    assert load_settings(environment=environment).intake.plans == ("scan", "list_scan")
