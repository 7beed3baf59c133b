"""msgpack as it is by itself, whatever another package has put in its place.

msgpack_numpy, which bluesky_kafka applies to msgpack in the whole process, packs arrays in a way of its own before
anybody else is asked, and unpickles what comes as an array of objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack


def _original(kind: type) -> Any:
    """Return the class that was there before others were derived from it, and put in its place."""
    return kind.__mro__[-2]


_Packer, _Unpacker = _original(msgpack.Packer), _original(msgpack.Unpacker)


def pack(value: Any, encode: Callable[[Any], Any]) -> bytes:
    """Pack a value; encode: turns what msgpack does not know into what it knows."""
    return bytes(_Packer(default=encode, use_bin_type=True).pack(value))


def unpack(data: bytes, decode: Callable[[dict[Any, Any]], Any]) -> Any:
    """Unpack one value; decode: turns tables back into what they stand for. Raises ValueError for anything else."""
    unpacker = _Unpacker(object_hook=decode, raw=False, strict_map_key=False, max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    try:
        value = unpacker.unpack()
    except msgpack.OutOfData as error:
        raise ValueError("it ends too early") from error
    if unpacker.tell() != len(data):
        raise ValueError(f"{len(data) - unpacker.tell()} bytes follow it")
    return value
