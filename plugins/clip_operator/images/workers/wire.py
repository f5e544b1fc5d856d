"""What the process of the model and a worker say to each other, over a socket.

To a worker goes pickle, from it comes JSON: a decoder that hostile bytes have taken over must not be able to hand code
to the process that holds the credentials and writes the results.
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from clip_operator.images.location import ImageLocation
from clip_operator.images.policy import ImagePolicy
from clip_operator.resizing import Resizing
from clip_operator.storage import CloudAccess, S3Settings

_HEAD = struct.Struct("<IQ")  # the lengths of the message and of the bytes behind it
_MOST_MESSAGE_BYTES = 1 << 22
_MOST_BLOB_BYTES = 1 << 30  # Pillow opens no image with more than a sixth of it in pixels


class Kind(StrEnum):
    """What is wanted of an image."""

    PIXELS = "pixels"
    THUMBNAIL = "thumbnail"


@dataclass(frozen=True, slots=True)
class Begin:
    """The first thing that a worker is told.

    :param s3: how S3 is reached; credentials are asked for.
    :param cloud: how Google's store and Azure are.
    :param seconds: the processor time that decoding one image may take.
    :param upright: images are turned as their EXIF says.
    """

    policy: ImagePolicy
    s3: S3Settings
    cloud: CloudAccess
    seconds: int
    upright: bool


@dataclass(frozen=True, slots=True)
class Pixels:
    """How the pixels of images are wanted from now on.

    :param resizing: what is done to each image; None to give all of its pixels.
    :param at_least: see :meth:`clip_operator.images.ImageLoader.decode`.
    :param slot_bytes: the size of the places for pixels in the shared memory; 0 if there are none.
    :param first_slot: where they begin.
    :param memory_bytes: its whole size.
    :param versions: tell also which version of its file an image was.
    """

    resizing: Resizing | None
    at_least: int | None
    slot_bytes: int
    first_slot: int
    memory_bytes: int
    versions: bool


@dataclass(frozen=True, slots=True)
class Order:
    """One image to do.

    :param slot: the number of the place for its pixels; -1 if they are not wanted there.
    """

    number: int
    kind: Kind
    location: ImageLocation
    slot: int


@dataclass(frozen=True, slots=True)
class Room:
    """The image that asked may be decoded now."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The answer to a worker that asked for them; None where there are none.

    :param keys: the access key, the secret key and the session token, if there is one.
    """

    keys: tuple[str, str, str | None] | None
    error: str | None = None


ToWorker = Begin | Pixels | list[Order] | Room | Credentials


def packed(message: ToWorker) -> bytes:
    """Return a message to a worker as it goes over the socket."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _HEAD.pack(0, len(data)) + data


def receive(connection: socket.socket) -> ToWorker | None:
    """Wait for the next message to this worker, and return it; None if no more will come."""
    head = _exactly(connection, _HEAD.size)
    data = None if head is None else _exactly(connection, _HEAD.unpack(head)[1])
    if data is None:
        return None
    message: ToWorker = pickle.loads(data)  # noqa: S301 (the process of the model wrote it)
    return message


def answer(message: dict[str, Any], blobs: list[bytes]) -> bytes:
    """Return what a worker says as it goes over the socket.

    :param blobs: bytes that go behind the message; it has their lengths.
    """
    text = json.dumps(message, separators=(",", ":")).encode()
    return b"".join([_HEAD.pack(len(text), sum(map(len, blobs))), text, *blobs])


class Answers:
    """Puts together what a worker says, however the socket cuts it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: bytes) -> Iterator[tuple[dict[str, Any], memoryview]]:
        """Take in what came; yield each message that is whole now, and the bytes behind it.

        :raises ValueError: it is no message.
        """
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            text, blob = _HEAD.unpack_from(self._buffer)
            if text > _MOST_MESSAGE_BYTES or blob > _MOST_BLOB_BYTES:
                raise ValueError("no message is that long")
            end = _HEAD.size + text + blob
            if len(self._buffer) < end:
                return
            whole = bytes(memoryview(self._buffer)[_HEAD.size : end])
            del self._buffer[:end]
            yield json.loads(whole[:text]), memoryview(whole)[text:]


def _exactly(connection: socket.socket, length: int) -> bytearray | None:
    data = bytearray(length)
    view, received = memoryview(data), 0
    while received < length:
        try:
            count = connection.recv_into(view[received:])
        except OSError:  # the other side was killed with something unread
            return None
        if not count:
            return None
        received += count
    return data
