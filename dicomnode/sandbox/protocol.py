"""What parent and child say to each other.

A request is one line of JSON on the child's standard input. The child answers on its
standard output in frames: 4 bytes of length (big endian), a JSON object, then the raw
bytes of the arrays that it names.

===========  ======================================================================
`kind`       Meaning
===========  ======================================================================
`ready`      the child has started; sent once, before the first request
`reading`    the header was parsed: `subject` names the instance; always precedes the
             next kinds when a header could be parsed
`prepared`   an image: `tensor` and `display` are shapes, their uint8 bytes follow,
             `decode_seconds` and `preprocess_seconds` are its times
`refused`    the gate's verdict: `reason`, `detail`
`failed`     `error` is the code of an error of `dicomnode.errors`, `message` its text
===========  ======================================================================

The parent treats answers as input from outside: a child that decodes hostile data may
have been taken over by it. Lengths, shapes and names are checked.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import (
    DicomnodeError,
    NotAnInstance,
    TransientError,
    UndecodableImage,
)
from dicomnode.findings import NotEvaluated, PreparedImage, Reason

LENGTH = struct.Struct(">I")
MAXIMUM_HEADER_BYTES = 16_384
MAXIMUM_SIDE = 1024
_MAXIMUM_TEXT = 2_000

_ERRORS: Mapping[str, type[DicomnodeError]] = {
    error.code: error for error in (UndecodableImage, NotAnInstance, TransientError)
}

ReadExactly = Callable[[int], bytes]
"""Returns as many bytes as asked for, or raises."""


class ProtocolViolation(Exception):
    """The child said something that this protocol does not know."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image to prepare."""

    path: str
    profile: str
    maximum_pixels: int

    def encoded(self) -> bytes:
        return json.dumps(vars(self)).encode("ascii") + b"\n"

    @classmethod
    def decoded(cls, line: bytes) -> Request:
        return cls(**json.loads(line))


def frame(header: Mapping[str, Any], *arrays: NDArray[np.uint8]) -> list[bytes | memoryview]:
    """The pieces of one frame, to be written in order."""
    text = json.dumps(header).encode("ascii")
    return [LENGTH.pack(len(text)), text, *(np.ascontiguousarray(one).data for one in arrays)]


def prepared_frame(image: PreparedImage) -> list[bytes | memoryview]:
    return frame(
        {
            "kind": "prepared",
            "tensor": image.tensor.shape,
            "display": image.display.shape,
            "decode_seconds": image.decode_seconds,
            "preprocess_seconds": image.preprocess_seconds,
        },
        image.tensor,
        image.display,
    )


def refused_frame(refusal: NotEvaluated) -> list[bytes | memoryview]:
    return frame({"kind": "refused", "reason": refusal.reason.value, "detail": refusal.detail})


def failed_frame(error: DicomnodeError) -> list[bytes | memoryview]:
    return frame({"kind": "failed", "error": error.code, "message": str(error)[:_MAXIMUM_TEXT]})


def read_header(read: ReadExactly) -> dict[str, Any]:
    """The JSON object of the next frame. Raises `ProtocolViolation`."""
    (length,) = LENGTH.unpack(read(LENGTH.size))
    if length > MAXIMUM_HEADER_BYTES:
        raise ProtocolViolation(f"a header of {length} bytes")
    try:
        header = json.loads(read(length))
    except ValueError as error:
        raise ProtocolViolation("a header that is no JSON") from error
    if not isinstance(header, dict):
        raise ProtocolViolation("a header that is no object")
    return header


def read_prepared(header: Mapping[str, Any], read: ReadExactly) -> PreparedImage:
    """The image that follows a `prepared` header. Raises `ProtocolViolation`."""
    return PreparedImage(
        tensor=_array(header.get("tensor"), 3, read),
        display=_array(header.get("display"), 2, read),
        decode_seconds=_seconds(header.get("decode_seconds")),
        preprocess_seconds=_seconds(header.get("preprocess_seconds")),
    )


def refusal(header: Mapping[str, Any]) -> NotEvaluated:
    """The verdict of a `refused` header. Raises `ProtocolViolation`."""
    try:
        reason = Reason(header.get("reason"))
    except ValueError as error:
        raise ProtocolViolation("an unknown reason") from error
    return NotEvaluated(reason=reason, detail=text(header, "detail"))


def failure(header: Mapping[str, Any]) -> DicomnodeError:
    """The error of a `failed` header. Raises `ProtocolViolation`."""
    kind = _ERRORS.get(str(header.get("error")))
    if kind is None:
        raise ProtocolViolation("an unknown error")
    return kind(text(header, "message"))


def text(header: Mapping[str, Any], key: str) -> str:
    """A bounded, printable text of a header."""
    found = header.get(key)
    if not isinstance(found, str):
        raise ProtocolViolation(f"no text {key}")
    return "".join(letter for letter in found[:_MAXIMUM_TEXT] if letter.isprintable())


def _array(shape: Any, dimensions: int, read: ReadExactly) -> NDArray[np.uint8]:
    if not isinstance(shape, list) or len(shape) != dimensions:
        raise ProtocolViolation("an array of the wrong shape")
    if not all(isinstance(side, int) and 1 <= side <= MAXIMUM_SIDE for side in shape):
        raise ProtocolViolation("an array of the wrong size")
    return np.frombuffer(read(math.prod(shape)), np.uint8).reshape(shape)


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ProtocolViolation("a time that is no number")
    return float(value)
