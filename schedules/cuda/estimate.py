"""How long a launch takes, without measuring: instructions, shared memory, caches, memory, occupancy and waves of one choice.

It ranks choices and algorithms where nothing was measured; tuning replaces it. Rates per multiprocessor and clock: CUDA C++ Programming Guide 13.0, "Arithmetic
Instructions" (float32 operations); memory bandwidth and clocks of the card that a preset assumes: data sheets of A100 80GB, A10, L4, H100 SXM.
"""

from __future__ import annotations

import math

_RATES = {  # float32 multiply-adds and bytes of memory, per multiprocessor and clock; clocks per microsecond
    "sm_80": (64, 12.7, 1410), "sm_86": (128, 4.9, 1695), "sm_89": (128, 2.5, 2040), "sm_90": (128, 14.5, 1755),
}
_L2 = 32  # bytes per multiprocessor and clock from the second cache
_LATENCY = 500  # clocks from asking memory to having a shared copy
_NEAR = 200  # clocks from asking for what the first or second cache mostly holds
_TOGETHER = 32  # terms of a sum whose operands one thread asks for at once
_COPIED = 18  # instructions per element of a shared copy
_EXCHANGE = 150  # clocks of two barriers and of shared memory in between
_LAUNCH = 2.0  # microseconds that a launch costs at least
_RESERVED = 1 << 10  # bytes of shared memory that the system takes per block


def registers(work, shape, c) -> int:
    """Of one thread: addresses, sums, one term's operands, and part of what an unrolled body asks memory for in advance. Fitted to what nvcc 13.0 took."""
    each = {t.axis: t.each for t in shape.tiles}
    ahead = sum(r.elements(each | work.steps(c)) for r in shape.direct)
    return int(26 + 1.5 * shape.results + sum(r.elements(each) for r in work.reads) + min(96, ahead / 2))


def shared_bytes(shape) -> int:
    """Of one block: copies, and the parts of sums with what they add up to."""
    results = shape.threads // shape.split * shape.results
    return sum(n for _, n in shape.shared) + (4 * results * (shape.split + 1) if shape.split > 1 else 0)


def allocated(work, shape, c, limits) -> int:
    """Registers of one block: whole warps, eight at a time."""
    return -(-registers(work, shape, c) // 8) * 8 * -(-shape.threads // limits["warp"]) * limits["warp"]


def resident(work, shape, c, limits) -> int:
    """Blocks that one multiprocessor holds at once; 0 if none fits."""
    threads = -(-shape.threads // limits["warp"]) * limits["warp"]
    return min(limits["registers_per_sm"] // allocated(work, shape, c, limits), limits["shared_per_sm"] // (shared_bytes(shape) + _RESERVED),
               limits["threads_per_sm"] // threads, limits["blocks_per_sm"])


def lines(work, shape, limits):
    """Per thread axis, the fastest first: (axis, its threads in one warp)."""
    order = [work.last] + [t.axis for t in reversed(shape.tiles) if t.axis != work.last]
    left, found = limits["warp"] // (min(shape.split, limits["warp"]) if work.apart else 1), []
    for axis in order:
        threads = next((t.threads for t in shape.tiles if t.axis == axis), 1)
        found.append((axis, min(left, threads)))
        left = max(1, left // threads)
    return found


def seconds(work, shape, c, target, fed=()) -> float:
    """Of one launch that computes a reduction; `fed`: the Fusions whose producers its blocks compute."""
    limits, (lanes, memory, clock) = target["limits"], _RATES[target["isa"]]
    held = resident(work, shape, c, limits)
    if not held:
        return math.inf
    warps = -(-shape.threads // limits["warp"])
    each = {t.axis: t.each for t in shape.tiles}
    near = each | {a: work.extents[a] for a in work.roles.table}
    unrolled = work.steps(c)
    warp = dict(lines(work, shape, limits))
    idle = limits["warp"] // math.prod(warp.values())  # lanes left to other parts of the same sums
    bodies = shape.terms * shape.chunks / max(1, shape.body)
    sums = shape.results * shape.body * work.operations / (1 if work.operations == 1 else 2)
    issued, waves = sums + (4 if shape.body < 32 else 2), 0.0
    for r in work.reads:
        common = any(r is s for s, _ in shape.shared)
        elements = r.elements(near | unrolled)
        width = _width(work, r, shape, each, common)
        loads = elements / width
        rows = math.prod(n for a, n in warp.items() if a in r.axes)
        groups = min(shape.split, idle) if work.divided in r.axes else 1
        distinct = rows * groups
        if common:
            issued, waves = issued + loads, waves + loads * max(1.0, distinct * width / 32) * _conflict(work, r, each, warp, width)
        else:
            checks = 8 if r.padded else 40 if r.gathered else 2
            beside = 1 if r.step(work.last) * each.get(work.last, 1) in (0, 1) or width > 1 else min(8, each.get(work.last, 1))
            if work.apart and r.step(work.divided) == 1:
                beside, spread = 1, rows
            elif not r.step(work.last) and work.last in r.axes:
                spread = distinct
            else:
                spread = max(groups, distinct * width * beside / 32)
            issued, waves = issued + loads * checks, waves + loads * (4 if r.constant else 2) * spread
    computed = {id(f.read): f for f in fed}
    copied = sum(n / 4 for _, n in shape.shared) + sum(f.elements(shape, c) * f.instructions / _COPIED for f in fed)  # elements, or as many as take as long
    block = {t.axis: t.size for t in shape.tiles} | {a: work.extents[a] for a in work.reduced}
    bytes_ = 4 * sum(r.elements(block) * _behind(computed.get(id(r))) for r in work.reads)
    steps = copied / (32 * warps)
    hidden = min(1.0, held * warps / (6 + 40 / math.sqrt(shape.results)))
    pipes = (sums * 32 / lanes * warps, issued * warps / 4, waves * warps)  # arithmetic, issue, caches and shared memory; they overlap, not quite
    compute = (bodies * (0.9 * max(pipes) + 0.1 * sum(pipes)) + shape.chunks * steps * warps * _COPIED / 4) / hidden
    if shape.split > 1:  # parts into shared memory, and out of it in turns
        turns = -(-shape.results // shape.split)
        compute += warps * (shape.results + turns * (6 + 2 * shape.split)) / 4
    waits = shape.chunks * _LATENCY if shape.shared else 0
    waits += sum(shape.chunks * -(-f.elements(shape, c) // shape.threads) * -(-f.producer.terms // _TOGETHER) * _NEAR for f in fed)
    alone = bodies * max(issued, sums * max(1, 4 / shape.results)) + shape.chunks * steps * _COPIED + waits + _LATENCY
    if shape.direct:
        alone += bodies * 30
    if shape.split > 1:
        alone += shape.results + turns * (60 + 6 * shape.split) + _EXCHANGE
    round_ = max(held * compute + waits / held, alone)
    sms = limits["sms"]
    full, rest = divmod(shape.blocks, sms * held)
    ends = max(alone, -(-rest // sms) * compute) if rest else 0
    clocks = full * round_ + (ends if not full else max(ends, round_ * rest / (sms * held)))
    written = 4 * work.points
    unique = written + 4 * sum(computed[id(r)].inputs if id(r) in computed else r.elements(work.extents) for r in work.reads)
    through = (shape.blocks * bytes_ + written * _apart(work, shape)) / sms
    traffic = max(unique / sms / memory, through / _L2)
    return (max(clocks, traffic) + 0.3 * min(clocks, traffic)) / clock * 1e-6 + _LAUNCH * 1e-6


def _behind(fusion) -> float:
    """Elements taken from memory per element of a copy."""
    return fusion.inputs / fusion.producer.points if fusion is not None else 1.0


def _width(work, r, shape, each, common) -> int:
    """Elements per load instruction: nvcc joins neighbours of shared memory that begin at multiples of four, but knows nothing of how arguments lie."""
    if not common:
        return 1
    f = work.slots["f"]
    if r.constant:
        along = f if f in r.axes and work.side_by_side else None
        return 4 if along is None or each.get(along, 1) % 4 == 0 else 2 if each.get(along, 1) % 2 == 0 else 1
    terms = r.dims[r.inner][0] or {}
    a = next((a for a, n in each.items() if terms.get(a, 0) and n % 4 == 0 and a != f), None)
    return 4 if a is not None else 1


def _conflict(work, r, each, warp, width) -> float:
    """How many times longer a shared load takes because threads meet in one bank."""
    terms = r.dims[r.inner][0] or {}
    axis = next((a for a, n in warp.items() if n > 1 and a in terms), None)
    if axis is None or r.constant:
        return 1.0
    stride = abs(terms[axis]) * (each.get(axis, 1) if axis in work.roles.spatial else min(4, each.get(axis, 1)))
    if width == 4:
        return max(1.0, min(warp[axis], 8, math.gcd(stride, 32) / 4))
    return float(min(warp[axis], math.gcd(stride, 32)))


def _apart(work, shape) -> float:
    """Bytes moved per byte written: threads that are no neighbours of the results in memory write parts of sectors."""
    threads, each = next(((t.threads, t.near) for t in shape.tiles if t.axis == work.last), (1, 1))
    return 1.0 if threads * each >= 8 else 8 / (threads * each)


def inline_seconds(program, stage, works, c, target) -> float:
    """Of computing a map stage anew wherever it is read: what tuned reductions do, beyond what a launch of its own would compute."""
    limits, (lanes, _, clock) = target["limits"], _RATES[target["isa"]]
    times = 0
    for w in works:
        shape = w.shape(c)
        for r in (r for r in w.reads if r.name == stage.name):
            common = any(r is s for s, _ in shape.shared)
            sizes = {t.axis: t.size if common else t.each for t in shape.tiles} | {a: w.extents[a] for a in w.reduced}
            times += shape.blocks * (1 if common else shape.threads // shape.split) * r.elements(sizes)
    operations = 4 + 2 * sum(1 for e in stage.body.walk() if e.op not in ("axis", "const", "size"))
    return times * operations / (limits["sms"] * lanes / 2) / clock * 1e-6


def plain_seconds(program, stage, target, split: int = 1) -> float:
    """Of one launch with `split` threads per result: what it moves, or what one thread computes after another."""
    from convgen.lang import access
    limits, (lanes, memory, clock) = target["limits"], _RATES[target["isa"]]
    extents = access.extents(stage)
    moved = 4 * math.prod(stage.shape)
    for load in stage.body.loads():
        shape = program.shape(load.data[0])
        moved += 4 * min(math.prod(shape), math.prod(extents[a] for a in {x for i in load.args for x in i.axes()}))
    serial = math.prod(extents[a.name] for a in stage.reduce)
    exchange = _EXCHANGE + 60 + 6 * split if split > 1 else 0
    issued = math.prod(stage.shape) * (30 * split + 6 * serial + (2 * split if split > 1 else 0)) / limits["sms"] / 128
    clocks = max(moved / limits["sms"] / memory, stage.flops / limits["sms"] / lanes, issued, _LATENCY + 20 * -(-serial // split) + exchange)
    return clocks / clock * 1e-6 + _LAUNCH * 1e-6
