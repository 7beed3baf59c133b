"""Addresses of Tiled servers: shown and recorded without keys, and one folder of waiting records for each server."""

import pytest

from bluesky_jit.archive import address, spill_directory, without_key
from bluesky_jit.settings_sections import TiledSettings


@pytest.mark.parametrize(
    "uri",
    ["http://tiled:8000/api", "http://tiled:8000/api?api_key=secret", "http://me:secret@tiled:8000/api?a=secret#b"],
)
def test_an_address_holds_no_secret(uri: str) -> None:
    assert address(uri) == "http://tiled:8000/api"


def test_a_message_holds_no_key() -> None:
    text = "401 for url 'http://tiled:8000/api/v1/?api_key=secret&a=b', and again"
    assert without_key(text) == "401 for url 'http://tiled:8000/api/v1/?api_key=…&a=b', and again"


def test_a_message_holds_no_header_with_a_key_nor_the_key_itself() -> None:
    assert without_key("Illegal header value b'Apikey secret'") == "Illegal header value b'Apikey …'"
    assert without_key("the key 'secret' is unknown", "secret") == "the key '…' is unknown"


def test_records_of_one_server_wait_in_one_folder(tmp_path) -> None:
    folders = [
        spill_directory(TiledSettings(uri=uri, spill_directory=str(tmp_path)))
        for uri in ("http://tiled:8000", "http://tiled:8000?a=b", "http://tiled:8001")
    ]
    assert folders[0] == folders[1] != folders[2]
    assert folders[0].parent == tmp_path
