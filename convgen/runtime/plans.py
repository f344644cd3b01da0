"""From a kernel entry and a resolved call to a plan: one native function that takes the call's tensors and runs the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Mapping, Sequence

import numpy as np

from convgen.errors import LibraryError
from convgen.runtime import arrays
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


class Builder:
    """Makes plans from the kernels of one shared object."""

    def __init__(self, shim: Shim, shared):
        self._shim, self._shared = shim, shared
        self._counters: dict[str, np.ndarray] = {}

    def runs(self) -> dict[str, int]:
        """How often each kernel ran, by symbol, for those that a plan was made for."""
        return {symbol: int(counter[0]) for symbol, counter in self._counters.items()}

    def _counter(self, symbol: str) -> np.ndarray:
        return self._counters.setdefault(symbol, np.zeros(1, np.uint64))

    def plan(self, kernel: Kernel, call: Resolved, held: Mapping[str, np.ndarray] | None = None) -> Plan:
        """A plan for one call. `held`: parameters and prepared buffers that a bound call brings; without it parameters are
        arguments of the plan, and the prepare kernel runs into scratch memory at every call."""
        entry, names = kernel.entry, []
        program, slots = Program(), {}
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
            program.held.append(memory.ctypes.data)
        if held is None and entry.get("prepare"):
            self._scratch(program, slots, entry, call)
            program.steps.append(self._step(entry["prepare"], slots, call))
        program.steps.append(self._step(entry, slots, call))
        steps = [entry, entry["prepare"]] if len(program.steps) == 2 else [entry]
        for argument in (a for step in steps for a in step["args"]):
            self._check(entry, argument, slots, program, call, held)
        counter = self._counter(entry["symbol"])
        program.counter = counter.ctypes.data
        return Plan(self._shim.compile(program), kernel, tuple(names), tuple(program.calls), (counter, *(held or {}).values()))

    def prepare(self, kernel: Kernel, call: Resolved, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The memory that a bound call holds: prepared buffers, and the parameters that the kernel reads itself.

        `parameters` are compact aligned bytes (`arrays.snapshot`)."""
        entry = kernel.entry
        held = {a["name"]: parameters[a["name"]] for a in entry["args"] if a["kind"] == "param"}
        step = entry.get("prepare")
        if step:
            program, slots, memory = Program(), {}, []
            for argument in step["args"]:
                shape = physical_shape(argument, call)
                if argument["kind"] == "param":
                    buffer = parameters[argument["name"]]
                    if buffer.nbytes != prod(shape) * itemsize(argument["dtype"]):
                        raise LibraryError(f"the prepare kernel {step['symbol']} takes {argument['name']} as {argument['dtype']} {shape}, "
                                           f"and the parameter has {buffer.nbytes} bytes")
                else:
                    buffer = arrays.memory(prod(shape) * itemsize(argument["dtype"]))
                    held[argument["name"]] = buffer
                slots[argument["name"]] = (CALL, len(memory))
                program.calls.append(Wanted(shape, strides_of(shape, range(len(shape))), argument["dtype"], argument["kind"] != "param"))
                memory.append(buffer)
            program.steps.append(self._step(step, slots, call))
            program.counter = self._counter(step["symbol"]).ctypes.data
            status = self._shim.compile(program)(*(buffer.ctypes.data for buffer in memory))
            if status and status >> 8 < 16:
                raise LibraryError(f"the prepare kernel {step['symbol']} was given memory that does not fit (status {status})")
        return held

    def _scratch(self, program: Program, slots: dict, entry: dict, call: Resolved) -> None:
        for argument in entry["prepare"]["args"]:
            if argument["kind"] != "param":
                slots[argument["name"]] = (SCRATCH, len(program.scratch))
                program.scratch.append(prod(physical_shape(argument, call)) * itemsize(argument["dtype"]))

    def _step(self, step: dict, slots: Mapping, call: Resolved) -> tuple[int, Sequence[Argument]]:
        arguments = []
        for argument in step["args"]:
            name = OUTPUT if argument["kind"] == "output" else argument["name"]
            if name not in slots:
                raise LibraryError(f"the kernel {step['symbol']} takes {name}, which neither the call nor a prepare kernel gives")
            arguments.append(Argument(*slots[name], argument["dtype"], physical_shape(argument, call)))
        return symbol_address(self._shared, step["symbol"]), arguments

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
