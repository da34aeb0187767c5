"""Loops as bytes: programs, each as its own file has it, and how they belong together."""
from __future__ import annotations

import binascii
import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..program.file import MAGIC_OF_LOOPS as MAGIC

VERSION = 1
_HEAD = "<Iqq3Q2I"  # version; length and checkpoints, -1 for None; bytes of the programs; params of final and until
_START = len(MAGIC) + struct.calcsize(_HEAD)


class Contents(NamedTuple):
    """What a file holds of a loop: the files of the step, final and until, empty for none; which of the step's params
    the last two have; length and checkpoints."""

    programs: Sequence[bytes]
    owned: Sequence[Sequence[int]]
    length: int | None
    checkpoints: int | None


def encode(contents: Contents) -> bytes:
    """The bytes of a loop."""
    parts = contents.programs
    owned = [struct.pack(f"<{len(own)}I", *own) for own in contents.owned]
    counts = [-1 if x is None else x for x in (contents.length, contents.checkpoints)]
    head = struct.pack(_HEAD, VERSION, *counts, *map(len, parts), *map(len, contents.owned))
    data = MAGIC + head + b"".join((*owned, *parts))
    return data + struct.pack("<I", binascii.crc32(data))


def decode(data: bytes) -> Contents:
    """What these bytes hold; nothing in them is trusted.

    Raises:
        ValueError: they are not a loop, or not of this version, or damaged.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("not a tapegrad loop")
    if len(data) < _START + 4:
        raise ValueError("a damaged tapegrad loop: it ends too early")
    version, length, checkpoints, *sizes = struct.unpack_from(_HEAD, data, len(MAGIC))
    if version != VERSION:
        raise ValueError(f"a tapegrad loop of format {version}: this one reads format {VERSION}")
    if binascii.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ValueError("a damaged tapegrad loop: its checksum is wrong")
    counts, at = sizes[3:], _START
    if _START + 4 * sum(counts) + sum(sizes[:3]) + 4 != len(data) or not sizes[0]:
        raise ValueError("a damaged tapegrad loop: its parts are not as long as it")
    owned = []
    for n in counts:
        owned.append(struct.unpack_from(f"<{n}I", data, at))
        at += 4 * n
    programs = []
    for n in sizes[:3]:
        programs.append(data[at : at + n])
        at += n
    return Contents(programs, owned, None if length < 0 else length, None if checkpoints < 0 else checkpoints)
