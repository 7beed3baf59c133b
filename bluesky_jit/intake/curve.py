"""Keys for documents between machines: 0MQ's CURVE encrypts them, and only those whose key is known are heard."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.auth.thread import ThreadAuthenticator

SERVICE = "service"
CLIENT = "client"
PUBLIC, SECRET = ".key", ".key_secret"


def make_keys(folder: Path) -> None:
    """Write the keys of the service and of its clients; raise FileExistsError instead of replacing any."""
    folder.mkdir(parents=True, exist_ok=True)
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


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches an address such as 127.0.0.1:5577."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_keys(addresses: dict[str, str], folder: str) -> None:
    """Refuse addresses that other machines reach when there are no keys; addresses: by the setting's name."""
    if folder:
        return
    for setting, address in addresses.items():
        if address.rpartition(":")[2].isdecimal() and not is_loopback(address):
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
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve(domain="*", location=folder)
    for socket in sockets:
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.curve_server = True
    return authenticator


def _pair(folder: str, name: str) -> tuple[bytes, bytes]:
    path = Path(folder) / f"{name}{SECRET}"
    public, secret = _load(path)
    if secret is None:
        raise ValueError(f"{path} holds no secret key: make keys with `bluesky-jit keys FOLDER`")
    if path.stat().st_mode & 0o007:
        raise ValueError(f"{path} can be read by everybody on this machine: `chmod o= {path}`")
    return public, secret


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return load_certificate(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"serve.curve_folder: {path} cannot be read ({error}): make keys with `bluesky-jit keys FOLDER`"
        ) from error
