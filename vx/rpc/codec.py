"""Protobuf messages in and out, with the care that betterproto leaves to its caller.

betterproto takes a truncated message for a shorter one, fails in many ways on a malformed one, and gives a negative
Duration's nanoseconds the wrong sign. So every message is checked against the wire format before it is decoded, and
durations are read by `duration_us`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import betterproto
from grpclib.encoding.base import CodecBase

from vx.rpc.wire import Buffer

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


MAX_FIELDS = 20_000
"""Fields of a request, its submessages' included; a mask's point takes three. Each takes some 25 us and 250 bytes to
decode, whereas two bytes on the wire can make one."""
_SMALL = 500
_SMALL_SIZE = 8 * 1024
"""Up to so many fields and bytes, a message is decoded where it is received. To count fields takes 1 us for each."""


class MalformedError(ValueError):
    """The bytes are not an encoding of the message that the method takes."""


MAX_TEXT = 64 * 1024
"""Bytes of a text in a request. Texts are quoted in errors, which makes them several times as long; bulk is `bytes`."""


class TooLargeError(ValueError):
    """There is more in the message than is decoded."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message that is encoded already: it is sent as it is."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Bulk:
    """Bytes of several messages with their gRPC prefixes, to be sent from the sender's own buffers.

    They may end within a message; the next `Bulk` then goes on there. The buffers belong to the sender again when
    `send_message` returns.
    """

    views: list[Buffer]


class Codec(CodecBase):
    """The codec that the server hands to grpclib's streams."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message.data if isinstance(message, Encoded) else bytes(message)

    def decode(self, data: bytes | bytearray, message_type: Any) -> Any:
        """MalformedError if `data` is not a whole and well-formed `message_type`; TooLargeError."""
        _count_fields(data, message_type)
        return self.decode_checked(data, message_type)

    def decode_checked(self, data: bytes | bytearray, message_type: Any) -> Any:
        """As `decode`, for what `is_small` has seen."""
        try:
            return message_type().parse(data)
        except OverflowError:
            raise MalformedError(f"{message_type.__name__}: a duration or a time is out of range") from None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise MalformedError(f"{message_type.__name__}: {error}") from error


def message_prefix(size: int) -> bytes:
    """What gRPC puts before an uncompressed message of `size` bytes."""
    return b"\0" + size.to_bytes(4, "big")


def encode_varint(value: int) -> bytes:
    """A non-negative integer as protobuf writes it."""
    if value < 0x80:
        return _SHORT[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT = [bytes([value]) for value in range(0x80)]


def number_field(number: int, value: int) -> bytes:
    """A varint field; nothing for 0, as proto3 has it. Negative values take ten bytes."""
    return encode_varint(number << 3) + encode_varint(value & 0xFFFF_FFFF_FFFF_FFFF) if value else b""


def bytes_field(number: int, data: bytes) -> bytes:
    """A length-delimited field, also when it is empty."""
    return encode_varint(number << 3 | 2) + encode_varint(len(data)) + data


def text_field(number: int, text: str) -> bytes:
    """A string field; nothing for an empty one."""
    return bytes_field(number, text.encode()) if text else b""


def _varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise MalformedError(f"{where}: ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedError(f"{where}: a number of more than 10 bytes")


def is_small(data: bytes | bytearray, message_type: Any) -> bool:
    """Whether `data`, which is then checked, is decoded so soon that nobody notices. MalformedError, TooLargeError."""
    return len(data) <= _SMALL_SIZE and _count_fields(data, message_type) <= _SMALL


def _count_fields(data: bytes | bytearray, message_type: Any) -> int:
    """How much there is to decode. MalformedError if `data` is not a `message_type`; TooLargeError."""
    return MAX_FIELDS - _check(memoryview(data), message_type, message_type.__name__, MAX_FIELDS)


def _check(data: memoryview, message_type: Any, where: str, left: int) -> int:
    """Walk `data` as the wire format says, into the submessages that `message_type` declares.

    `left` is how many fields there may be; returns how many more there may be after it.
    """
    shape = _shape(message_type)
    wire_types = shape.wire_types
    at, end = 0, len(data)
    while at < end:
        left -= 1
        if left < 0:
            raise TooLargeError(f"the message has more than {MAX_FIELDS} fields")
        tag, at = _varint(data, at, where)
        number, wire_type = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise MalformedError(f"{where}: field number {number}")
        if wire_type not in wire_types.get(number, _ANY):
            raise MalformedError(f"{where}: field {number} has the wire type {wire_type}")
        if wire_type == _VARINT:
            _, at = _varint(data, at, where)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        else:
            length, at = _varint(data, at, where)
            if at + length > end:
                raise MalformedError(f"{where}: field {number} is longer than its message")
            if number in shape.messages:
                name, nested = shape.messages[number]
                left = _check(data[at : at + length], nested, f"{where}.{name}", left)
            elif number in shape.dense:
                left -= length // _DENSITY
            elif number in shape.texts and length > MAX_TEXT:
                raise TooLargeError(f"{where}: field {number} has {length} bytes; at most {MAX_TEXT} are allowed")
            at += length
    if at != end:
        raise MalformedError(f"{where}: ends within a field")
    return left


_ANY = frozenset({_VARINT, _FIXED64, _LENGTH, _FIXED32})
_DENSITY = 8
"""Bytes of a map's entry, or of packed numbers, that count as a field."""


class _Shape(NamedTuple):
    """What `_check` has to know of a message type: numbers of its fields."""

    wire_types: dict[int, frozenset[int]]
    """How each may be encoded. betterproto would take a number where a text is declared, and hand it on."""
    messages: dict[int, tuple[str, Any]]
    """Those that are messages, with their names and types."""
    dense: frozenset[int]
    """Those that hold many values in one field."""
    texts: frozenset[int]


@functools.cache
def _shape(message_type: Any) -> _Shape:
    meta = message_type()._betterproto
    fields = meta.meta_by_field_name
    return _Shape(
        {
            field.number: _wire_types(field.proto_type, repeated=meta.default_gen[name] is list)
            for name, field in fields.items()
        },
        {
            field.number: (name, meta.cls_by_field[name])
            for name, field in fields.items()
            if field.proto_type == betterproto.TYPE_MESSAGE
            and not field.wraps
            and issubclass(meta.cls_by_field[name], betterproto.Message)
        },
        frozenset(
            field.number
            for field in fields.values()
            if field.proto_type in betterproto.PACKED_TYPES or field.proto_type == betterproto.TYPE_MAP
        ),
        frozenset(field.number for field in fields.values() if field.proto_type == betterproto.TYPE_STRING),
    )


def _wire_types(proto_type: str, *, repeated: bool) -> frozenset[int]:
    if proto_type in betterproto.WIRE_FIXED_32_TYPES:
        scalar = _FIXED32
    elif proto_type in betterproto.WIRE_FIXED_64_TYPES:
        scalar = _FIXED64
    elif proto_type in betterproto.WIRE_VARINT_TYPES:
        scalar = _VARINT
    else:
        scalar = _LENGTH
    return frozenset({scalar, _LENGTH} if repeated else {scalar})


def unknown_field(message: Any, path: str) -> str | None:
    """The path and number of a field that this server does not know, anywhere in `message`."""
    if message._unknown_fields:
        tag, _ = _varint(memoryview(message._unknown_fields), 0, path)
        return f"{path}.{tag >> 3}"
    for name in message._betterproto.sorted_field_names:
        try:
            value = getattr(message, name)
        except AttributeError:  # a member of a oneof that is not set
            continue
        values = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        for index, item in enumerate(values):
            if isinstance(item, betterproto.Message):
                item_path = f"{path}.{name}[{index}]" if isinstance(value, list) else f"{path}.{name}"
                found = unknown_field(item, item_path)
                if found:
                    return found
    return None


def duration_us(value: timedelta) -> int:
    """A decoded `google.protobuf.Duration` in microseconds."""
    return value // timedelta(microseconds=1)
