"""Keys: who may read them, and what a service does with a folder that would leave it deaf."""

import os
import re
import threading
from pathlib import Path

import pytest
from servers import LOOPBACK, free_ports

from bluesky_jit.intake.curve import make_keys
from bluesky_jit.intake.hub import DocumentHub
from bluesky_jit.intake.wire import DocumentPublisher
from bluesky_jit.settings_sections import ServeSettings


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    make_keys(folder)
    return folder


@pytest.fixture
def settings(keys: Path) -> ServeSettings:
    into, out = free_ports(2)
    return ServeSettings(
        publish_address=f"{LOOPBACK}:{into}", subscribe_address=f"{LOOPBACK}:{out}", curve_folder=str(keys)
    )


def refusal(settings: ServeSettings) -> str:
    """Return why a hub does not start; it leaves nothing running."""
    before = threading.active_count()
    with pytest.raises(ValueError, match=r"curve_folder|chmod") as caught:
        DocumentHub(settings)
    assert threading.active_count() == before
    return str(caught.value)


def test_everybody_may_read_public_keys_and_nobody_else_a_secret(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    # A careful administrator's.
    before = os.umask(0o077)
    try:
        make_keys(keys)
    finally:
        os.umask(before)
    assert keys.stat().st_mode & 0o777 == 0o755
    modes = {path.name: path.stat().st_mode & 0o777 for path in keys.iterdir()}
    public, secret = 0o644, 0o600
    assert modes == {
        "service.key": public,
        "client.key": public,
        "service.key_secret": secret,
        "client.key_secret": secret,
    }


def test_keys_are_never_replaced(keys: Path) -> None:
    with pytest.raises(FileExistsError, match="remove it, or give another folder"):
        make_keys(keys)


def test_a_secret_that_everybody_can_read_is_refused(settings: ServeSettings, keys: Path) -> None:
    (keys / "service.key_secret").chmod(0o644)
    assert "can be read by everybody" in refusal(settings)


def test_a_folder_without_keys_says_how_to_make_them(settings: ServeSettings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make keys with `bluesky-jit keys FOLDER`"):
        DocumentPublisher(settings.publish_address, curve_folder=str(tmp_path))


def test_a_service_that_would_hear_nobody_does_not_start(settings: ServeSettings, keys: Path) -> None:
    (keys / "client.key").unlink()
    assert f"{keys} has no key of a client, such as client.key: make keys with" in refusal(settings)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_key_that_the_service_may_not_read_is_named(settings: ServeSettings, keys: Path) -> None:
    (keys / "client.key").chmod(0)
    assert f"{keys / 'client.key'} cannot be read by this account: `chown` it" in refusal(settings)


@pytest.mark.parametrize("name", ["service.key_secret", "client.key", "another.key"])
@pytest.mark.parametrize(
    "text",
    ['public-key = "abc"', f'public-key = "{"x" * 39}é"', f'public-key = "{"#" * 40}"', "nothing", "public-key"],
    ids=["short", "not Z85", "too large", "no key", "no value"],
)
def test_a_file_without_a_key_is_named(settings: ServeSettings, keys: Path, name: str, text: str) -> None:
    (keys / name).write_text(f'{text}\nsecret-key = "{"0" * 40}"\n')
    told = refusal(settings)
    assert told.startswith(f"serve.curve_folder: {keys / name} ")
    assert re.search("make keys with `bluesky-jit keys FOLDER`$", told)


def test_a_client_with_a_malformed_key_is_told(settings: ServeSettings, keys: Path) -> None:
    (keys / "service.key").write_text('public-key = "abc"\n')
    with pytest.raises(ValueError, match=r"service\.key holds no key of 32 bytes"):
        DocumentPublisher(settings.publish_address, curve_folder=settings.curve_folder)
