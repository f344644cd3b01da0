"""aarch64 kernels in Unicorn: object files as they come from the compiler, on guarded buffers.

What a serving process gives a kernel (threads, scratch memory, the error function, memcpy and memset) are a few ARM instructions here. Tasks of a parallel loop run
one after the other. `pip install unicorn`; nothing else is needed, no linker and no ARM machine.
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

from ..errors import WorkerError
from ..runtime.elf import ABSOLUTE, ALLOC, UNDEFINED, File, family
from ..tune.kernel import GUARD, NativeKernel

_PAGE = 4096
_STUBS, _CODE, _META, _STACK, _SCRATCH, _DATA = 0x10000, 0x400000, 0x4000000, 0x5000000, 0x10000000, 0x100000000
_STACK_BYTES, _META_BYTES, _SCRATCH_BYTES = 1 << 20, 1 << 16, 256 << 20
_GAP = 1 << 20  # unmapped memory between buffers: what reaches beyond their guards stops the kernel
_TASKS = 3  # of a parallel loop, so that its shares are met
_SECONDS = 120

# The functions by name; made from the C beside them with a cross assembler. All find their cells behind the last one.
_FUNCTIONS = {
    # for (i = 0; i < count (0: that of the cell); i++) if (rc = task(i, &{0, count}, closure)) return rc; return 0
    "launch":
        "10000809 35000042 b9400122 a9bc7bfd a90153f3 a9025bf5 aa0003f3 aa0103f4 2a0203f5 52800016 f9001bff f9001ff5 2a1603e0 9100c3e1 aa1403e2 d63f0260 "
        "350000a0 110006d6 6b1502df 54fffeeb 52800000 a94153f3 a9425bf5 a8c47bfd d65f03c0",
    # p = next; if (p + round_up(nbytes, 64) + 64 > limit) return 0; next = that; live++; return p
    "alloc":
        "100004e9 a9409920 9101fc42 927ae442 8b020002 eb06005f 540000c8 f9000522 f9400d26 910004c6 f9000d26 d65f03c0 d2800000 d65f03c0",
    # if (--live == 0) next = base; return 0
    "free":
        "10000329 a9419d26 f10004c6 f9000d26 54000041 f9000527 52800000 d65f03c0",
    # the cells get kind, parts and count
    "raised":
        "10000229 a9028520 f9001d22 d65f03c0",
    # memcpy
    "copy":
        "aa0003e3 b40000a2 38401424 38001464 f1000442 54ffffa1 d65f03c0",
    # memset
    "set":
        "aa0003e3 b4000082 38001461 f1000442 54ffffc1 d65f03c0",
}
_CELLS = {"tasks": 0, "next": 8, "limit": 16, "live": 24, "base": 32, "kind": 40, "parts": 48, "count": 56}  # 8 bytes each, from offset 256 of the stubs on
_HOOKS = {"__TVMBackendParallelLaunch": "launch", "__TVMBackendAllocWorkspace": "alloc", "__TVMBackendFreeWorkspace": "free"}
_IMPORTS = {"TVMFFIErrorSetRaisedFromCStrParts": "raised", "memcpy": "copy", "memset": "set"}

# Relocation types of the ELF for the Arm 64-bit Architecture (IHI 0056), by number.
_ABS64, _PREL64, _PREL32, _ADR, _PAGE21, _ADD12, _TEST14, _COND19, _JUMP26, _CALL26 = 257, 260, 261, 274, 275, 277, 279, 280, 282, 283
_LDST = {278: 0, 284: 1, 285: 2, 286: 3, 299: 4}  # and the size of what is loaded or stored
_GOT_PAGE, _GOT_LOW = 311, 312


def opener(entry: dict, directory, target: dict):
    """A function from a workload's dims to its kernel; see convgen.emulate.opener."""
    return lambda dims: EmulatedKernel(Path(directory, entry["object"]), entry, dims, target["features"])


class EmulatedKernel(NativeKernel):
    """The run and prepare functions of one kernel entry in an aarch64 object file, with the interface of NativeKernel."""

    def __init__(self, path: str, entry: dict, dims: dict, features=(), tasks: int = _TASKS):
        """`features`: those that the kernel may use; code beyond Armv8.0 is an error where the list does not go further. `tasks`: of a parallel loop."""
        self.entry, self.dims = entry, dims
        self.machine = _Machine(Path(path).read_bytes(), Path(path).name, features, tasks)
        self._run = self._function(entry["symbol"])
        prepare = entry.get("prepare")
        self._prepare = self._function(prepare["symbol"]) if prepare else None

    def _function(self, symbol: str) -> int:
        if "__tvm_ffi_" + symbol not in self.machine.functions:
            raise WorkerError("invalid", f"the object file defines no function {symbol}")
        return self.machine.functions["__tvm_ffi_" + symbol]

    def _bind(self, function, arguments, buffers):
        return lambda: self.machine.call(function, [buffers[a["name"]] for a in arguments])

    def instructions(self, buffers) -> int:
        """Instructions of one run on these buffers: the same on every machine, and no time."""
        return self.machine.counted(self._run, [buffers[a["name"]] for a in self.entry["args"]])


class _Machine:
    def __init__(self, content, name, features, tasks):
        try:
            import unicorn
            from unicorn import arm64_const
        except ImportError:
            raise WorkerError("invalid", "running aarch64 kernels here needs unicorn: pip install unicorn") from None
        if family(content) != "arm":
            raise WorkerError("invalid", f"{name} is for {family(content)} and not for arm")
        self.unicorn, self.registers, self.name = unicorn, arm64_const, name
        self.cpu = cpu = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        cpu.ctl_set_cpu_model(arm64_const.UC_CPU_ARM64_MAX if {"asimdhp", "asimddp"} & set(features) else arm64_const.UC_CPU_ARM64_A72)
        cpu.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # floating point and vectors without traps
        self.stubs, code = {}, b""
        for function, words in _FUNCTIONS.items():
            self.stubs[function] = _STUBS + len(code)
            code += b"".join(struct.pack("<I", int(w, 16)) for w in words.split())
        cpu.mem_map(_STUBS, _PAGE)
        cpu.mem_write(_STUBS, code)
        self._set(tasks=tasks, base=_SCRATCH, limit=_SCRATCH + _SCRATCH_BYTES)
        cpu.mem_map(_META, _META_BYTES)
        cpu.mem_map(_STACK, _STACK_BYTES)
        cpu.mem_map(_SCRATCH, _SCRATCH_BYTES)
        self.functions = self._load(File(content))
        self._mapped, self._stale = {}, 0xFF

    def _set(self, **cells):
        for name, value in cells.items():
            self.cpu.mem_write(_STUBS + 256 + _CELLS[name], struct.pack("<Q", value))

    def _get(self, name) -> int:
        return struct.unpack("<Q", self.cpu.mem_read(_STUBS + 256 + _CELLS[name], 8))[0]

    # -- loading --------------------------------------------------------------------------------------------------------
    def _load(self, file) -> dict:
        """Place and relocate the sections; name → address of every function and hook."""
        at, places = _CODE, {}
        for number, section in enumerate(file.sections):
            if section.flags & ALLOC and section.size:
                at = -(-at // max(section.align, 1)) * max(section.align, 1)
                places[number], at = at, at + section.size
        symbols = file.symbols()
        got = -(-at // 16) * 16
        image = bytearray(got + 8 * len(symbols) - _CODE)
        for number, place in places.items():
            image[place - _CODE:place - _CODE + file.sections[number].size] = file.data(file.sections[number])

        def address(symbol) -> int:
            if symbol.section == UNDEFINED:
                if symbol.name not in _IMPORTS:
                    raise WorkerError("invalid", f"{self.name} needs {symbol.name}, which a serving process does not have")
                return self.stubs[_IMPORTS[symbol.name]]
            return symbol.value + (0 if symbol.section == ABSOLUTE else places[symbol.section])
        for number, symbol in enumerate(symbols):
            if symbol.section in places or symbol.name in _IMPORTS:
                struct.pack_into("<Q", image, got + 8 * number - _CODE, address(symbol))
            elif symbol.section == UNDEFINED and symbol.name:
                address(symbol)
        for section, offset, kind, number, addend in file.relocations():
            if section in places:
                slot = got + 8 * number if kind in (_GOT_PAGE, _GOT_LOW) else None
                _relocate(image, places[section] + offset, kind, address(symbols[number]) + addend if slot is None else slot)
        for symbol in symbols:
            if symbol.name in _HOOKS and symbol.section in places:
                struct.pack_into("<Q", image, address(symbol) - _CODE, self.stubs[_HOOKS[symbol.name]])
        self.cpu.mem_map(_CODE, -(-len(image) // _PAGE) * _PAGE)
        self.cpu.mem_write(_CODE, bytes(image))
        return {s.name: address(s) for s in symbols if s.section in places and not s.local}

    # -- calling --------------------------------------------------------------------------------------------------------
    def _place(self, buffers) -> list:
        """Copy the buffers with their guards into the machine; their addresses, aligned as they are here."""
        at, found = _DATA, []
        for b in buffers:
            start = at + _PAGE
            size = -(-(start + b.nbytes + GUARD - at) // _PAGE) * _PAGE
            if self._mapped.get(at) != size:
                if at in self._mapped:
                    self.cpu.mem_unmap(at, self._mapped[at])
                self.cpu.mem_map(at, size)
                self._mapped[at] = size
            self.cpu.mem_write(start - GUARD, b.whole.tobytes())
            found.append(start)
            at += -(-(size + _GAP) // _GAP) * _GAP
        return found

    def call(self, function: int, buffers: list) -> None:
        """One call; buffers and their guards come back as the kernel left them. Raises WorkerError."""
        for at in [a for a in self._mapped if a >= _DATA]:
            self.cpu.mem_unmap(at, self._mapped.pop(at))
        places, r = self._place(buffers), self.registers
        arguments, tensors = b"", _META + 0x1000
        for i, (b, place) in enumerate(zip(buffers, places)):
            where = tensors + 256 * i
            rank, code = len(b.shape), b.tensor
            sizes = struct.pack(f"<{2 * rank}q", *b.shape, *b.strides)
            tensor = struct.pack("<QiiiBBHQQQ", place if b.nbytes else 0, 1, 0, rank, code.code, code.bits, 1, where + 64, where + 64 + 8 * rank, 0)
            self.cpu.mem_write(where, tensor.ljust(64, b"\0") + sizes)
            arguments += struct.pack("<iIQ", 7, 0, where)
        self.cpu.mem_write(_META, arguments.ljust(16, b"\0"))
        self._set(next=_SCRATCH, live=0)
        self._stale ^= 0xFF ^ 0x3C  # what lies in scratch memory must not show
        self.cpu.mem_write(_SCRATCH, bytes([self._stale]) * min(_SCRATCH_BYTES, 4 << 20))
        back = _STUBS + _PAGE - 16
        for register, value in ((r.UC_ARM64_REG_SP, _STACK + _STACK_BYTES - 256), (r.UC_ARM64_REG_X0, 0), (r.UC_ARM64_REG_X1, _META), (r.UC_ARM64_REG_X2, len(buffers)),
                                (r.UC_ARM64_REG_X3, _META + 0x800), (r.UC_ARM64_REG_LR, back)):
            self.cpu.reg_write(register, value)
        try:
            self.cpu.emu_start(function, back, timeout=_SECONDS * 1000000)
        except self.unicorn.UcError as error:
            raise WorkerError("crash", f"the kernel stopped at offset {self.cpu.reg_read(r.UC_ARM64_REG_PC) - _CODE:#x}: {error}") from None
        if self.cpu.reg_read(r.UC_ARM64_REG_PC) != back:
            raise WorkerError("run_timeout", f"the kernel ran for more than {_SECONDS} s")
        result = ctypes.c_int32(self.cpu.reg_read(r.UC_ARM64_REG_X0) & 0xFFFFFFFF).value
        if result:
            raise WorkerError("crash", f"the kernel stopped with code {result}: {self._message()}")
        for b, place in zip(buffers, places):
            b.whole[:] = memoryview(self.cpu.mem_read(place - GUARD, b.nbytes + 2 * GUARD))

    def counted(self, function: int, buffers: list) -> int:
        """Instructions of one call: those of every block that began, which no kernel leaves before its end."""
        blocks: dict[int, list] = {}

        def block(_, at, size, __):
            if at in blocks:
                blocks[at][0] += 1
            else:
                blocks[at] = [1, size // 4]
        self.cpu.ctl_flush_tb()  # blocks that were translated without the hook would not tell
        hook = self.cpu.hook_add(self.unicorn.UC_HOOK_BLOCK, block, begin=_CODE, end=_META)
        try:
            self.call(function, buffers)
        finally:
            self.cpu.hook_del(hook)
            self.cpu.ctl_flush_tb()
        return sum(times * size for times, size in blocks.values())

    def _message(self) -> str:
        where, count = self._get("parts"), self._get("count")
        parts = [struct.unpack("<Q", self.cpu.mem_read(where + 8 * i, 8))[0] for i in range(min(count, 64))] if where else []
        return "".join(self._text(p) for p in parts) or "no message"

    def _text(self, at: int) -> str:
        text = b""
        while at and not text.endswith(b"\0") and len(text) < 1000:
            text += bytes(self.cpu.mem_read(at + len(text), 1))
        return text.rstrip(b"\0").decode(errors="replace")


def _relocate(image: bytearray, place: int, kind: int, value: int) -> None:
    """Fill in one place of the image, at address `place`, with what an address `value` means there."""
    at = place - _CODE
    if kind == _ABS64:
        struct.pack_into("<Q", image, at, value)
        return
    if kind in (_PREL64, _PREL32):
        struct.pack_into("<q" if kind == _PREL64 else "<i", image, at, value - place)
        return
    word, distance = struct.unpack_from("<I", image, at)[0], value - place
    if kind in (_PAGE21, _GOT_PAGE, _ADR):
        pages = distance if kind == _ADR else (value >> 12) - (place >> 12)
        word |= (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    elif kind == _ADD12 or kind in _LDST or kind == _GOT_LOW:
        word |= ((value & 0xFFF) >> (3 if kind == _GOT_LOW else _LDST.get(kind, 0))) << 10
    elif kind in (_JUMP26, _CALL26):
        word |= distance >> 2 & 0x3FFFFFF
    elif kind == _COND19:
        word |= (distance >> 2 & 0x7FFFF) << 5
    elif kind == _TEST14:
        word |= (distance >> 2 & 0x3FFF) << 5
    else:
        raise WorkerError("invalid", f"the object file has a relocation of type {kind}, which the emulation does not know")
    struct.pack_into("<I", image, at, word)
