"""Documents between processes: bluesky's 0MQ message format, with msgpack instead of pickle.

Nothing that comes over the socket can run code: arrays travel as type, shape and bytes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import zmq
from event_model import DocumentNames

logger = logging.getLogger(__name__)

ARRAY = "__array__"


def serialise(document: dict[str, Any]) -> bytes:
    """Pack a document, NumPy arrays and numbers included."""
    return bytes(msgpack.Packer(default=_encode, use_bin_type=True).pack(document))


def deserialise(data: bytes) -> dict[str, Any]:
    """Unpack what `serialise` packed."""
    return msgpack.unpackb(data, object_hook=_decode, raw=False, strict_map_key=False)


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"an array of {value.dtype} cannot be sent: use numbers or text")
        return {ARRAY: value.dtype.str, "shape": list(value.shape), "data": np.ascontiguousarray(value).tobytes()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be sent in a document: use numbers, text, lists, dicts or arrays")


def _decode(value: dict[str, Any]) -> Any:
    if ARRAY not in value:
        return value
    return np.frombuffer(value["data"], dtype=np.dtype(value[ARRAY])).reshape(value["shape"])


class DocumentPublisher:
    """Send a RunEngine's documents to the proxy: `RE.subscribe(DocumentPublisher(address))`.

    It speaks the format of bluesky's own Publisher, and knows whether anybody listens; it never waits for them.
    """

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        # XPUB is PUB that also hears who subscribes.
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 1000)
        # No limit on documents that wait: a frame reference is small, and none may be lost while the proxy is slow.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.connect(f"tcp://{address}")
        self._heard = False

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        self._socket.send(b" ".join([b"", name.encode(), serialise(document)]))

    def wait_for_listener(self, timeout_s: float) -> bool:
        """Wait until somebody listens; return whether they do. Documents sent before are not heard by anybody."""
        until = time.monotonic() + timeout_s
        while self._socket.poll(0 if self._heard else max(0, round(1000 * (until - time.monotonic())))):
            self._heard = self._socket.recv()[:1] == b"\x01"
        return self._heard

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def start_proxy(publish_address: str, subscribe_address: str) -> None:
    """Listen for RunEngines and for whoever wants their documents; both are served until the process ends.

    bluesky's own Proxy subscribes to RunEngines by itself, so that they cannot know whether anybody behind it listens,
    and drops what comes faster than a thousand documents.
    """
    context = zmq.Context()
    frontend, backend = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    try:
        for each, address in ((frontend, publish_address), (backend, subscribe_address)):
            each.set_hwm(0)
            each.bind(f"tcp://{address}")
    except zmq.ZMQError as error:
        context.destroy(linger=0)
        raise OSError(
            f"the document proxy cannot listen on {publish_address} and {subscribe_address} ({error}): is another "
            "`bluesky-jit serve` running? Set serve.publish_address and serve.subscribe_address to free ports"
        ) from error
    threading.Thread(target=zmq.proxy, args=(frontend, backend), name="jit-proxy", daemon=True).start()


def documents(address: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents that a proxy sends out; what is no document is logged and left out."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        # The reader is only busy for microseconds a document, so that what waits here is a short burst.
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(f"tcp://{address}")
        while True:
            for part in socket.recv_multipart():
                try:
                    yield read_document(part)
                except ValueError as error:
                    logger.warning("a message of %d bytes is no document (%s): it was left out", len(part), error)


def read_document(message: bytes) -> tuple[str, dict[str, Any]]:
    """Return the name and the document in a message; raise ValueError for anything else."""
    try:
        _, name, data = message.split(b" ", 2)
        document = deserialise(data)
        kind = DocumentNames[name.decode()]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        # KeyError: an array without its shape, or a name that bluesky does not have.
        raise ValueError(str(error) or type(error).__name__) from error
    if not isinstance(document, dict):
        raise ValueError(f"a {kind.name} is a table, not {type(document).__name__}")
    return kind.name, document
