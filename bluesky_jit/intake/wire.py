"""Documents between processes: bluesky's 0MQ message format, with msgpack instead of pickle.

Nothing that comes over the socket can run code: arrays travel as type, shape and bytes.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from collections import deque
from typing import Any

import numpy as np
import zmq
from event_model import DocumentNames

from bluesky_jit.addresses import require_address
from bluesky_jit.intake.curve import secure_client
from bluesky_jit.intake.history import CAUGHT_UP, History, size_of
from bluesky_jit.intake.plain_msgpack import pack, unpack
from bluesky_jit.intake.senders import own_name

logger = logging.getLogger(__name__)

ARRAY = "__array__"
MOST_BYTES = 256 * 2**20
"""Largest document, and all that may wait for a service that is away: a quarter of a million documents that refer to
files, or minutes of small frames in events."""
SOCKET_DOCUMENTS = 1000
"""Documents on their way; 0MQ's default."""
WAIT_S = 0.05
LINGER_MS = 1000


def serialise(document: dict[str, Any]) -> bytes:
    """Pack a document, NumPy arrays and numbers included."""
    return pack(document, _encode)


def deserialise(data: bytes) -> dict[str, Any]:
    """Unpack what `serialise` packed."""
    return unpack(data, _decode)


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
    """Send a RunEngine's documents to `bluesky-jit serve`: `RE.subscribe(DocumentPublisher(address))`.

    It speaks the format of bluesky's own Publisher, and knows whether anybody listens. Documents are sent by a thread
    of its own and wait in memory while a service that listened is away, up to `most_bytes`; what comes beyond that is
    left out and counted. The RunEngine never waits.

    A service that begins to listen in the middle of a run is sent all that came of it before.

    address: host and port, as in serve.publish_address.
    curve_folder: where its keys are, for a service that has some.
    """

    def __init__(self, address: str, *, curve_folder: str = "", most_bytes: int = MOST_BYTES) -> None:
        require_address("the address to publish to", address)
        self._address = address
        self._name = own_name()
        self._most_bytes = most_bytes
        self._context = zmq.Context()
        # XPUB is PUB that also hears who subscribes.
        self._socket = self._context.socket(zmq.XPUB)
        # It says when it is full, instead of leaving documents out; they wait here, where they are counted.
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        # A service that was started again subscribes as the one before it did.
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.SNDHWM, SOCKET_DOCUMENTS)
        self._socket.setsockopt(zmq.SNDTIMEO, round(1000 * WAIT_S))
        try:
            if curve_folder:
                secure_client(self._socket, curve_folder)
            self._socket.connect(f"tcp://{address}")
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, dict[str, Any], int]] = deque()
        self._bytes = 0
        self._heard = False
        self._closing_s = math.inf
        self._dropping = 0
        self.dropped = 0
        """Documents that were left out since there was no more room for them."""
        self._history = History()
        self._thread = threading.Thread(target=self._send_for_ever, name="jit-documents", daemon=True)
        self._thread.start()
        # The last documents of a console that is left are still sent.
        atexit.register(self.close)

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        size = size_of(document)
        with self._changed:
            if self._bytes + size > self._most_bytes:
                self.dropped += 1
                self._dropping += 1
                first = self._dropping == 1
            else:
                first = False
                self._waiting.append((name, document, size))
                self._bytes += size
                self._changed.notify_all()
        if first:
            logger.error(
                "a document of %.3g MB was not sent: with it more than %.3g MB would wait for the service at %s, which "
                "takes too few or is away. Start `bluesky-jit serve` there; runs and their files are not touched",
                size / 1e6,
                self._most_bytes / 1e6,
                self._address,
            )

    def wait_for_listener(self, timeout_s: float) -> bool:
        """Wait until somebody listens; return whether they do. Documents sent before are not heard by anybody."""
        with self._changed:
            return self._changed.wait_for(lambda: self._heard, timeout_s)

    def wait_until_sent(self, timeout_s: float) -> bool:
        """Wait until no document waits here any more; return whether that was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Send what waits, for at most `timeout_s`, and end."""
        atexit.unregister(self.close)
        with self._changed:
            self._closing_s = min(self._closing_s, time.monotonic() + timeout_s)
            self._changed.notify_all()
        self._thread.join()

    def _send_for_ever(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closing_s < math.inf, WAIT_S)
                self._hear()
                if self._waiting:
                    self._send_first()
                elif self._closing_s < math.inf:
                    return
                if time.monotonic() > self._closing_s:
                    return
        finally:
            self._socket.close(linger=LINGER_MS)
            self._context.term()

    def _hear(self) -> None:
        while self._socket.poll(0):
            heard = self._socket.recv()[:1] == b"\x01"
            with self._changed:
                self._heard = heard
                if heard:
                    # What waits is newer. Without a size: it is kept already.
                    for name, document in reversed(self._history.documents()):
                        marked = {**document, CAUGHT_UP: True} if name == "start" else document
                        self._waiting.appendleft((name, marked, 0))
                self._changed.notify_all()

    def _send_first(self) -> None:
        """Send the oldest document, unless there is no room for it yet."""
        name, document, size = self._waiting[0]
        try:
            self._socket.send(b" ".join([self._name, name.encode(), serialise(document)]))
        except zmq.Again:
            return
        except (TypeError, ValueError) as error:
            logger.error("a document (%s) was not sent to the JIT session: %s", name, error)
        with self._changed:
            self._waiting.popleft()
            if size:
                self._history.add(name, document)
            self._bytes -= size
            self._changed.notify_all()
            dropped = 0
            if not self._waiting:
                dropped, self._dropping = self._dropping, 0
        if dropped:
            logger.error("the service takes documents again; %d were left out meanwhile", dropped)


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
