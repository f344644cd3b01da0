"""From a kernel entry and a resolved call to a plan: one native function that takes the call's tensors and runs the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Mapping, Sequence

import numpy as np

from convgen.errors import LibraryError
from convgen.runtime import arrays
from convgen.runtime.arrays import Memory
from convgen.runtime.dispatch import Kernel
from convgen.runtime.layout import compact, order, strides_of
from convgen.runtime.native import CALL, HELD, SCRATCH, Argument, Program, Shim, Wanted, itemsize, symbol_address
from convgen.runtime.signature import Resolved
from convgen.runtime.sizes import evaluate

OUTPUT = "out"


@dataclass(frozen=True)
class Plan:
    """A kernel ready for tensors of fixed shapes. `run(*tensors, out)` returns a status; `names` are its tensors in order."""

    run: Any
    kernel: Kernel
    names: tuple[str, ...]
    wanted: tuple[Wanted, ...]  # of the named tensors, the output last
    keep: tuple  # memory that the native side points to

    @property
    def output(self) -> Wanted:
        return self.wanted[-1]

    def launcher(self, like: arrays.View):
        """`run` for tensors of the same kind as `like`."""
        return self.run


class Builder:
    """Makes plans from the kernels of one shared object."""

    def __init__(self, shim: Shim, shared):
        self._shim, self._shared = shim, shared
        self._counters: dict[str, np.ndarray] = {}

    def check(self, entries: Sequence[Mapping]) -> None:
        """Raises LibraryError if a kernel is missing."""
        for step in (step for entry in entries for step in (entry, entry.get("prepare")) if step):
            symbol_address(self._shared, step["symbol"])

    def runs(self) -> dict[str, int]:
        """How often each kernel ran, by symbol, for those that a plan was made for."""
        return {symbol: int(counter[0]) for symbol, counter in self._counters.items()}

    def _counter(self, symbol: str) -> np.ndarray:
        return self._counters.setdefault(symbol, np.zeros(1, np.uint64))

    def plan(self, kernel: Kernel, call: Resolved, held: Mapping[str, Memory] | None = None) -> Plan:
        """A plan for one call. `held`: parameters and prepared buffers that a bound call brings; without it parameters are
        arguments of the plan, and the prepare kernel runs into scratch memory at every call."""
        entry, names = kernel.entry, []
        program, slots = self._program(), {}
        for tensor in call.signature["tensors"]:
            if held is not None and tensor["kind"] == "param":
                continue
            slots[tensor["name"]] = (CALL, len(names))
            names.append(tensor["name"])
            program.calls.append(wanted(call, tensor, entry["layout"]))
        output = {"name": OUTPUT, "kind": "input", "dtype": entry["output_dtype"], "spatial": call.signature["output"]["spatial"]}
        slots[OUTPUT] = (CALL, len(names))
        program.calls.append(wanted(call, output, entry["layout"], call.output_shape))
        for name, memory in (held or {}).items():
            slots[name] = (HELD, len(program.held))
            program.held.append(memory.pointer)
        steps = [entry["prepare"], entry] if held is None and entry.get("prepare") else [entry]
        if len(steps) == 2:
            for argument in entry["prepare"]["args"]:
                if argument["kind"] != "param":
                    slots[argument["name"]] = self._scratch(program, argument, call)
        for step in steps:
            self._add(program, step, slots, call, entry)
        for argument in (a for step in steps for a in step["args"]):
            self._check(entry, argument, slots, program, call, held)
        counter = self._counter(entry["symbol"])
        program.counter = counter.ctypes.data
        return self._finish(program, kernel, tuple(names), (counter, *(held or {}).values()))

    def prepare(self, kernel: Kernel, call: Resolved, parameters: Mapping[str, Memory], like: arrays.View | None) -> dict[str, Memory]:
        """The memory that a bound call holds: prepared buffers, and the parameters that the kernel reads itself.

        `parameters` are compact and aligned (`arrays.snapshot`), `like` is one of them as given."""
        entry = kernel.entry
        held = {a["name"]: parameters[a["name"]] for a in entry["args"] if a["kind"] == "param"}
        step = entry.get("prepare")
        if step:
            program, slots, memory = self._program(), {}, []
            for argument in step["args"]:
                shape = physical_shape(argument, call)
                if argument["kind"] == "param":
                    buffer = parameters[argument["name"]]
                    if buffer.nbytes != nbytes_of(argument, call):
                        raise LibraryError(f"the prepare kernel {name_of(step)} takes {argument['name']} as {argument['dtype']} {shape}, "
                                           f"and the parameter has {buffer.nbytes} bytes")
                else:
                    buffer = self._memory(nbytes_of(argument, call), like)
                    held[argument["name"]] = buffer
                slots[argument["name"]] = (CALL, len(memory))
                program.calls.append(Wanted(shape, strides_of(shape, range(len(shape))), argument["dtype"], argument["kind"] != "param"))
                memory.append(buffer)
            self._add(program, step, slots, call, entry)
            counter = self._counter(name_of(step))
            program.counter = counter.ctypes.data
            plan = self._finish(program, kernel, (), (counter,))
            status = plan.launcher(like)(*(buffer.pointer for buffer in memory))
            if status and status >> 8 < 16:
                raise LibraryError(f"the prepare kernel {name_of(step)} was given memory that does not fit (status {status})")
        return held

    def settle(self, like: arrays.View | None) -> None:
        """Wait until what a bound call holds may be read from any thread and stream."""

    def _program(self) -> Program:
        return Program()

    def _memory(self, nbytes: int, like: arrays.View | None) -> Memory:
        return arrays.held(nbytes)

    def _finish(self, program: Program, kernel: Kernel, names: tuple, keep: tuple) -> Plan:
        return Plan(self._shim.compile(program), kernel, names, tuple(program.calls), keep)

    @staticmethod
    def _scratch(program: Program, argument: Mapping, call: Resolved) -> tuple[int, int]:
        program.scratch.append(nbytes_of(argument, call))
        return SCRATCH, len(program.scratch) - 1

    def _add(self, program: Program, step: dict, slots: Mapping, call: Resolved, entry: dict) -> None:
        """Append a step of the entry (its kernel or its prepare kernel) to the program."""
        arguments = [Argument(*slot_of(step, argument["name"], slots), argument["dtype"], physical_shape(argument, call)) for argument in step["args"]]
        program.steps.append((symbol_address(self._shared, step["symbol"]), arguments))

    @staticmethod
    def _check(entry: dict, argument: Mapping, slots: Mapping, program: Program, call: Resolved, held) -> None:
        """A manifest whose kernel arguments disagree with its signature would make a kernel read past a tensor's end."""
        shape = physical_shape(argument, call)
        source, index = slots[OUTPUT if argument["kind"] == "output" else argument["name"]]
        if source == CALL:
            tensor = program.calls[index]
            perm = argument["perm"] if argument.get("perm") is not None else range(len(tensor.shape))
            given = tuple(tensor.shape[d] for d in perm)
            right = given == shape and tensor.dtype == argument["dtype"] and compact(tensor.shape, tensor.strides, perm)
        elif source == HELD:
            given = f"{held[argument['name']].nbytes} bytes"
            right = held[argument["name"]].nbytes == prod(shape) * itemsize(argument["dtype"])
        else:
            return
        if not right:
            raise LibraryError(f"the kernel {entry['symbol']} takes {argument['name']} as {argument['dtype']} {shape}, "
                               f"and the call gives {given}")


def name_of(step: Mapping) -> str:
    """Symbol of a step's (first) kernel."""
    return step["symbol"] if "symbol" in step else step["launches"][0]["symbol"]


def slot_of(step: Mapping, name: str, slots: Mapping) -> tuple[int, int]:
    """Where the memory of one of a step's arguments comes from."""
    kinds = {argument["name"]: argument["kind"] for argument in step["args"]}
    slot = slots.get(OUTPUT if kinds.get(name) == "output" else name)
    if slot is None:
        raise LibraryError(f"the kernel {name_of(step)} takes {name}, which neither the call nor a prepare kernel gives")
    return slot


def nbytes_of(argument: Mapping, call: Resolved) -> int:
    """Bytes of a kernel argument at the call's dimensions."""
    return prod(physical_shape(argument, call)) * itemsize(argument["dtype"])


def physical_shape(argument: Mapping, call: Resolved) -> tuple[int, ...]:
    """The compact shape of a kernel argument at the call's dimensions."""
    values = call.symbols
    return tuple(int(evaluate(tree, values)) for tree in argument["shape"])


def wanted(call: Resolved, tensor: Mapping, layout: str, shape: Sequence[int] | None = None) -> Wanted:
    """The strides in which a kernel of this layout reads a tensor of the signature, or writes the output."""
    if shape is None:
        values = call.symbols
        shape = tuple(evaluate(tree, values) for tree in tensor["dims"])
    spatial = () if tensor["kind"] == "param" else tuple(tensor.get("spatial") or ())
    strides = strides_of(shape, order(len(shape), spatial, layout))
    return Wanted(tuple(shape), strides, tensor["dtype"], tensor["name"] == OUTPUT)
