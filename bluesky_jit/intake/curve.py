"""Keys for documents between machines: 0MQ's CURVE encrypts them, and only those whose key is known are heard."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from bluesky_jit.addresses import is_loopback

SERVICE = "service"
CLIENT = "client"
PUBLIC, SECRET = ".key", ".key_secret"
KEY_BYTES = 32
"""Curve25519's."""
REMEDY = "make keys with `bluesky-jit keys FOLDER`"


def make_keys(folder: Path) -> None:
    """Write the keys of the service and of its clients; raise FileExistsError instead of replacing any."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give a folder for the keys")
    if not folder.exists():
        folder.mkdir(parents=True)
        # Others look for public keys in it, whatever the umask.
        folder.chmod(0o755)
    for name in (SERVICE, CLIENT):
        for suffix in (PUBLIC, SECRET):
            if (folder / f"{name}{suffix}").exists():
                raise FileExistsError(f"{folder / name}{suffix} exists: remove it, or give another folder")
    # At no time may others read a secret.
    before = os.umask(0o077)
    try:
        for name in (SERVICE, CLIENT):
            create_certificates(folder, name)
    finally:
        os.umask(before)
    for name in (SERVICE, CLIENT):
        # The service hears only clients whose key its own account can read.
        (folder / f"{name}{PUBLIC}").chmod(0o644)


def require_keys(addresses: dict[str, str], folder: str) -> None:
    """Refuse addresses that other machines reach when there are no keys; addresses: by the setting's name."""
    if folder:
        return
    for setting, address in addresses.items():
        if not is_loopback(address):
            raise ValueError(
                f"{setting} is {address}, which other machines reach, and anybody there could send and read documents: "
                "make keys with `bluesky-jit keys FOLDER` and set serve.curve_folder, or use 127.0.0.1"
            )


def secure_client(socket: zmq.Socket, folder: str) -> None:
    """Make a socket that connects to the service use the client's keys."""
    public, secret = _pair(folder, CLIENT)
    socket.curve_publickey, socket.curve_secretkey = public, secret
    socket.curve_serverkey, _ = _load(Path(folder) / f"{SERVICE}{PUBLIC}")


def secure_service(context: zmq.Context, sockets: list[zmq.Socket], folder: str) -> ThreadAuthenticator:
    """Make sockets that listen use the service's keys, and hear only clients whose public key is in the folder."""
    public, secret = _pair(folder, SERVICE)
    # What cannot be read here, the authenticator would leave out, and with it all clients.
    clients = [_load(path) for path in Path(folder).glob(f"*{PUBLIC}") if path.stem != SERVICE]
    if not clients:
        raise ValueError(f"serve.curve_folder: {folder} has no key of a client, such as {CLIENT}{PUBLIC}: {REMEDY}")
    _load(Path(folder) / f"{SERVICE}{PUBLIC}")
    for socket in sockets:
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.curve_server = True
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve(domain="*", location=folder)
    return authenticator


def _pair(folder: str, name: str) -> tuple[bytes, bytes]:
    path = Path(folder) / f"{name}{SECRET}"
    public, secret = _load(path)
    if secret is None:
        raise ValueError(f"serve.curve_folder: {path} holds no secret key: {REMEDY}")
    if path.stat().st_mode & 0o007:
        raise ValueError(f"{path} can be read by everybody on this machine: `chmod o= {path}`")
    return public, secret


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        # The library takes a file that is there but may not be looked at for one that is missing.
        path.open("rb").close()
        public, secret = load_certificate(path)
    except PermissionError as error:
        raise ValueError(
            f"serve.curve_folder: {path} cannot be read by this account: `chown` it to the account, or `chmod` it or "
            "its folder"
        ) from error
    except (OSError, ValueError, IndexError) as error:
        # IndexError: a key's name without a key.
        raise ValueError(f"serve.curve_folder: {path} cannot be read ({error}): {REMEDY}") from error
    for key in (public, secret):
        if key is not None and not _is_key(key):
            raise ValueError(f"serve.curve_folder: {path} holds no key of {KEY_BYTES} bytes in Z85: {REMEDY}")
    return public, secret


def _is_key(text: bytes) -> bool:
    try:
        return len(z85.decode(text)) == KEY_BYTES
    except (ValueError, KeyError, struct.error):
        return False
