"""H.264 and H.265 as bytes: NAL units, their parameter sets, and how a container frames them. Pure.

A stream is either in *Annex B* form, each unit behind a start code (MPEG-TS, and extradata in that form), or has each
unit behind its length in big-endian bytes, with the sets in a configuration record (MP4, Matroska).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_START_CODE = re.compile(rb"\x00\x00\x01")
_H264_SETS = {7, 8}
_H264_DROPPED = {6, 9, 12}
_I_SLICES = {2, 4, 7, 9}
"""Values of slice_type, ISO/IEC 14496-10 table 7-6: I and SI."""
_H265_SETS = {32, 33, 34}
_H265_DROPPED = {35, 38, 39, 40}


@dataclass(frozen=True)
class Form:
    """How a stream is written: `codec` is h264 or hevc, `length_size` the bytes of a length, 0 for Annex B."""

    codec: str
    length_size: int

    @classmethod
    def of(cls, codec: str, extradata: bytes) -> Form | None:
        """Told by the extradata; None for another codec, or a record that makes no sense."""
        if codec not in ("h264", "hevc"):
            return None
        if not extradata or extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
            return cls(codec, 0)
        if codec == "h264" and len(extradata) >= 7 and extradata[0] == 1:
            return cls(codec, (extradata[4] & 3) + 1)
        if codec == "hevc" and len(extradata) >= 23:
            return cls(codec, (extradata[21] & 3) + 1)
        return None

    def split(self, data: bytes) -> list[bytes]:
        """The NAL units of a packet. ValueError where the lengths don't add up."""
        return _split_lengths(data, self.length_size) if self.length_size else split_start_codes(data)

    def join(self, units: list[bytes]) -> bytes:
        """A packet of these units."""
        if not self.length_size:
            return b"".join(b"\0\0\0\1" + unit for unit in units)
        return b"".join(len(unit).to_bytes(self.length_size, "big") + unit for unit in units)

    def kind(self, unit: bytes) -> int:
        """The type in the unit's header."""
        return unit[0] & 31 if self.codec == "h264" else unit[0] >> 1 & 63

    def is_set(self, unit: bytes) -> bool:
        """Whether it is a parameter set."""
        return self.kind(unit) in (_H264_SETS if self.codec == "h264" else _H265_SETS)

    def is_dropped(self, unit: bytes) -> bool:
        """Whether it is of no use for decoding: an encoder's remarks, delimiters, filler."""
        return self.kind(unit) in (_H264_DROPPED if self.codec == "h264" else _H265_DROPPED)

    def starts_anew(self, units: list[bytes]) -> bool:
        """Whether nothing from this picture on refers to what came before it: it is an IDR picture."""
        kinds = {self.kind(unit) for unit in units}
        return 5 in kinds if self.codec == "h264" else bool(kinds & {16, 17, 18, 19, 20})

    def stands_alone(self, units: list[bytes]) -> bool:
        """Whether this picture refers to no other one. ValueError where it can't be told."""
        if self.codec == "hevc":
            return any(16 <= self.kind(unit) <= 23 for unit in units)
        slices = [unit for unit in units if self.kind(unit) == 1]
        return self.starts_anew(units) or (bool(slices) and all(_numbers(s, 1, 2)[1] in _I_SLICES for s in slices))

    def sets(self, extradata: bytes) -> list[bytes]:
        """The parameter sets in the extradata. ValueError or IndexError where it is cut short."""
        if not self.length_size:
            return [unit for unit in split_start_codes(extradata) if self.is_set(unit)]
        return _avcc_sets(extradata)[0] if self.codec == "h264" else _hvcc_sets(extradata)

    def with_sets(self, extradata: bytes, further: list[bytes]) -> bytes:
        """H.264 extradata with these sets too."""
        if not self.length_size:
            return extradata + self.join(further)
        sets, rest = _avcc_sets(extradata)
        sets += further
        sequence = [unit for unit in sets if self.kind(unit) == 7]
        picture = [unit for unit in sets if self.kind(unit) == 8]
        record = extradata[:5] + bytes([0xE0 | len(sequence)]) + _with_lengths(sequence)
        return record + bytes([len(picture)]) + _with_lengths(picture) + rest

    def ids(self, sets: list[bytes]) -> set[int]:
        """The numbers by which H.264 pictures refer to these sets."""
        return {_set_id(unit) for unit in sets}


def bare(codec: str, extradata: bytes) -> bytes:
    """Extradata without the zeros that may stand between units in Annex B form, and mean nothing."""
    form = Form.of(codec, extradata)
    return extradata if form is None or form.length_size else form.join(split_start_codes(extradata))


def split_start_codes(data: bytes) -> list[bytes]:
    """The NAL units of a stretch in Annex B form."""
    starts = [match.start() for match in _START_CODE.finditer(data)]
    ends = [*starts[1:], len(data)]
    units = (data[start + 3 : end].rstrip(b"\0") for start, end in zip(starts, ends, strict=True))
    return [unit for unit in units if unit]


def _split_lengths(data: bytes, size: int) -> list[bytes]:
    units: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + size
        at = begin + int.from_bytes(data[at:begin], "big")
        if at > len(data):
            raise ValueError("a NAL unit is longer than its packet")
        if at > begin:
            units.append(data[begin:at])
    return units


def _avcc_sets(record: bytes) -> tuple[list[bytes], bytes]:
    """The sets of an avcC, and what follows them."""
    sets: list[bytes] = []
    at = 5
    for mask in (0x1F, 0xFF):
        count = record[at] & mask
        at += 1
        for _ in range(count):
            unit, at = _with_length_at(record, at)
            sets.append(unit)
    return sets, record[at:]


def _hvcc_sets(record: bytes) -> list[bytes]:
    sets: list[bytes] = []
    at = 23
    for _ in range(record[22]):
        kind = record[at] & 63
        count = int.from_bytes(record[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            unit, at = _with_length_at(record, at)
            if kind in _H265_SETS:
                sets.append(unit)
    return sets


def _with_length_at(record: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(record[at : at + 2], "big")
    if end > len(record) or end <= at + 2:
        raise ValueError("the decoder's configuration is cut short")
    return record[at + 2 : end], end


def _with_lengths(units: list[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _set_id(unit: bytes) -> int:
    """seq_parameter_set_id or pic_parameter_set_id: the first Exp-Golomb number after the fixed bytes."""
    (number,) = _numbers(unit, 4 if unit[0] & 31 == 7 else 1, 1)
    return number


def _numbers(unit: bytes, at: int, count: int) -> list[int]:
    """The Exp-Golomb numbers from a byte on. ValueError where there are none."""
    payload = unit[: at + 8].replace(b"\0\0\3", b"\0\0")[at:]
    bits, left = int.from_bytes(payload, "big"), 8 * len(payload)
    found = []
    for _ in range(count):
        rest = bits & (1 << left) - 1
        zeros = left - rest.bit_length()
        if rest == 0 or 2 * zeros + 1 > left:
            raise ValueError("a unit without the numbers that it begins with")
        left -= 2 * zeros + 1
        found.append((rest >> left) - 1)
    return found
