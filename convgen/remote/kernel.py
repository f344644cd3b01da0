"""A kernel entry on another machine, with the interface of `tune.kernel.NativeKernel`: what is verified here verifies it there."""

from __future__ import annotations

import weakref

import tvm

from ..errors import WorkerError
from ..runtime.sizes import evaluate
from ..tune.kernel import GUARD, Buffer


class RemoteKernel:
    """The functions of one linked candidate (with `guarded.c`) in a session. `device` is the session's processor.

    Buffers live here; a call sends them with their canaries, runs between the canaries, and brings all of them back.
    """

    def __init__(self, module, device, entry: dict, dims: dict):
        self.module, self.device, self.entry, self.dims = module, device, entry, dims
        self._blocks, self._tensors = weakref.WeakKeyDictionary(), weakref.WeakKeyDictionary()
        self._functions = {part: module.get_function(f"guarded_{part}") for part in ("run", *(["prepare"] if entry.get("prepare") else []))}

    def buffers(self, arguments: list[dict], shared: dict | None = None) -> dict[str, Buffer]:
        """A guarded buffer per argument, by name; those in `shared` are taken over."""
        shared = shared or {}
        return {a["name"]: shared.get(a["name"]) or Buffer([int(evaluate(tree, self.dims)) for tree in a["shape"]], a["dtype"]) for a in arguments}

    def caller(self, buffers: dict[str, Buffer]):
        """A function without arguments that runs the kernel once on these buffers."""
        return self._bind("run", self.entry["args"], buffers)

    def preparer(self, buffers: dict[str, Buffer]):
        """The same for the prepare function; None if the kernel has none."""
        return self._bind("prepare", self.entry["prepare"]["args"], buffers) if self.entry.get("prepare") else None

    def tensor(self, buffer: Buffer):
        """The memory over there of a buffer's shape, without canaries; one per buffer, its values are whatever they were."""
        if buffer not in self._tensors:
            self._tensors[buffer] = tvm.runtime.empty(buffer.shape, buffer.dtype, self.device)
        return self._tensors[buffer]

    def settle(self, buffers: dict[str, Buffer]) -> list:
        """The run function's buffers copied to their `tensor`s, which are returned, ready to be timed."""
        for buffer in (buffers[a["name"]] for a in self.entry["args"]):
            self.tensor(buffer).copyfrom(buffer.array)
        return [self.tensor(buffers[a["name"]]) for a in self.entry["args"]]

    def _bind(self, part: str, arguments: list[dict], buffers: dict[str, Buffer]):
        used = [buffers[a["name"]] for a in arguments]

        def call():
            blocks = [self._block(buffer) for buffer in used]
            for buffer, block in zip(used, blocks):
                block.copyfrom(buffer.whole)
            code = self._functions[part](GUARD, *[self.tensor(buffer) for buffer in used], *blocks)
            if code:  # so TVM answers a failed allocation
                raise WorkerError("oom", f"the kernel stopped with code {code}; it ran out of memory")
            for buffer, block in zip(used, blocks):
                buffer.whole[:] = block.numpy()

        return call

    def _block(self, buffer: Buffer):
        if buffer not in self._blocks:
            self._blocks[buffer] = tvm.runtime.empty((buffer.whole.size,), "uint8", self.device)
        return self._blocks[buffer]
