"""Where documents of all RunEngines come in: read by the session, and passed on to whoever else listens."""

from __future__ import annotations

import errno
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import zmq

from bluesky_jit.intake.curve import require_keys, secure_service
from bluesky_jit.intake.history import SMALL_DOCUMENT
from bluesky_jit.intake.senders import Senders
from bluesky_jit.intake.wire import MOST_BYTES, read_document
from bluesky_jit.settings_sections import ServeSettings

logger = logging.getLogger(__name__)

WAITING_DOCUMENTS = 1000
"""Documents that wait here from each RunEngine, and for each other listener; 0MQ's default. A RunEngine that is faster
keeps the rest itself; a listener that is slower misses some."""
SAID_EVERY_S = 10.0
"""Time between two lines in the log about the same kind of rubbish."""
EVERYTHING = b"\x01"
"""The message by which a listener subscribes to everything."""


class DocumentHub:
    """Listen at the two addresses of the settings; raise OSError or ValueError when that cannot be.

    Unlike bluesky's own Proxy it subscribes to RunEngines only while documents are read, so that they know whether
    anybody listens.
    """

    def __init__(self, settings: ServeSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        addresses = {
            "serve.publish_address": settings.publish_address,
            "serve.subscribe_address": settings.subscribe_address,
        }
        require_keys(addresses, settings.curve_folder)
        self._clock = clock
        self._senders = Senders()
        self._faults: Counter[str] = Counter()
        self._said_s: dict[str, float] = {}
        self._context = zmq.Context()
        self._in, self._out = self._context.socket(zmq.XSUB), self._context.socket(zmq.XPUB)
        self._authenticator = None
        try:
            if settings.curve_folder:
                self._authenticator = secure_service(self._context, [self._in, self._out], settings.curve_folder)
            # A sender of more is cut off: nothing here may fill the memory.
            self._in.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES + SMALL_DOCUMENT)
            for each, (setting, address) in zip((self._in, self._out), addresses.items(), strict=True):
                each.set_hwm(WAITING_DOCUMENTS)
                _bind(each, setting, address)
        except BaseException:
            self.close()
            raise

    def documents(self, ending: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield documents until `ending` (a file descriptor, or what has one) is readable.

        What is no document is left out and told in the log, each kind at most once in a while.
        """
        poller = zmq.Poller()
        for each in (self._in, self._out, ending):
            poller.register(each, zmq.POLLIN)
        self._in.send(EVERYTHING)
        descriptor = ending if isinstance(ending, int) else ending.fileno()
        while True:
            ready = dict(poller.poll())
            if descriptor in ready:
                return
            if self._in not in ready:
                # All that a process which has ended had sent has been read.
                for each in ready:
                    for stop in self._senders.ended(each) or ():
                        yield "stop", stop
                    if isinstance(each, int):
                        poller.unregister(each)
            if self._out in ready:
                # Others subscribe: to RunEngines that is nothing new.
                self._out.recv()
            if self._in in ready:
                for part in self._in.recv_multipart():
                    self._out.send(part)
                    try:
                        document = read_document(part)
                    except ValueError as error:
                        self._say(len(part), error)
                        continue
                    watched = self._senders.hear(part.split(b" ", 1)[0], *document)
                    if watched is not None:
                        poller.register(watched, zmq.POLLIN)
                    yield document

    def close(self) -> None:
        """Leave the addresses to others."""
        self._senders.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self, size: int, error: ValueError) -> None:
        kind = type(error.__cause__).__name__
        self._faults[kind] += 1
        now_s = self._clock()
        if now_s - self._said_s.get(kind, -SAID_EVERY_S) < SAID_EVERY_S:
            return
        self._said_s[kind] = now_s
        logger.warning(
            "a message of %d bytes is no document (%s): it was left out, the %d. of its kind",
            size,
            str(error)[:200],
            self._faults[kind],
        )


def _bind(socket: zmq.Socket, setting: str, address: str) -> None:
    try:
        socket.bind(f"tcp://{address}")
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = f"is another `bluesky-jit serve` running? Set {setting} to a free port"
        else:
            remedy = f"set {setting} to an address of this machine and a port that this account may use"
        reason = zmq.strerror(error.errno or 0)
        raise OSError(f"documents cannot be heard: cannot listen on {address} ({reason}): {remedy}") from error
