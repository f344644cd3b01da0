"""What an ELF file of 64 bits says of itself: for which machine it is, which symbols it has and what must be filled in where.

Format: System V gABI, chapter 4 (object files) and 5 (dynamic linking); numbers of machines and relocations as in Linux' elf.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MACHINES = {62: "x86", 183: "arm"}  # EM_X86_64, EM_AARCH64 as target families
SYMTAB, RELA, NOBITS, DYNSYM = 2, 4, 8, 11
ALLOC = 2
UNDEFINED, ABSOLUTE, COMMON = 0, 0xFFF1, 0xFFF2
_LOCAL, _WEAK = 0, 2


@dataclass(frozen=True)
class Section:
    """One section: `kind`, `flags`, `address`, `size` and so on as the format has them."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry: int


@dataclass(frozen=True)
class Symbol:
    """One symbol; `section` is its number there or UNDEFINED, ABSOLUTE, COMMON."""

    name: str
    section: int
    value: int
    size: int
    local: bool
    weak: bool


def family(content: bytes) -> str:
    """The target family that a file is for: "x86", "arm", or a few words when it is neither."""
    if content[:4] != b"\x7fELF" or len(content) < 64:
        return "no machine (it is no ELF file)"
    if content[4] != 2 or content[5] != 1:
        return f"a machine of {'32 bits' if content[4] == 1 else 'another byte order'}"
    number = struct.unpack_from("<H", content, 18)[0]
    return MACHINES.get(number, f"machine number {number}")


class File:
    """Sections, symbols and relocations of one file. Raises struct.error or IndexError for what is no whole ELF file."""

    def __init__(self, content: bytes):
        self.content = content
        where, = struct.unpack_from("<Q", content, 40)
        size, count, names = struct.unpack_from("<HHH", content, 58)
        raw = [struct.unpack_from("<IIQQQQIIQQ", content, where + i * size) for i in range(count)]
        texts = raw[names][4]
        self.sections = [Section(self._text(texts + r[0]), r[1], r[2], *r[3:]) for r in raw]

    def _text(self, at: int) -> str:
        return self.content[at:self.content.index(b"\0", at)].decode()

    def data(self, section: Section) -> bytes:
        """The bytes of a section; zeros where the file holds none."""
        return bytes(section.size) if section.kind == NOBITS else self.content[section.offset:section.offset + section.size]

    def symbols(self, kind: int = SYMTAB) -> list[Symbol]:
        """All symbols of the table of this kind (SYMTAB or DYNSYM), in order."""
        found = []
        for s in self.sections:
            if s.kind == kind:
                names = self.sections[s.link].offset
                for name, info, _, section, value, size in struct.iter_unpack("<IBBHQQ", self.data(s)):
                    found.append(Symbol(self._text(names + name), section, value, size, info >> 4 == _LOCAL, info >> 4 == _WEAK))
        return found

    def relocations(self):
        """(section that holds the place, offset, type, number of the symbol, addend) of every relocation."""
        for s in self.sections:
            if s.kind == RELA:
                for offset, info, addend in struct.iter_unpack("<QQq", self.data(s)):
                    yield s.info, offset, info & 0xFFFFFFFF, info >> 32, addend
