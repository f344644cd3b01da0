"""Which device a wave was measured on, in the words of targets and records."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Iterable

from ..errors import TuneError
from ..targets import Target
from ..targets.arm import CORES, GENERIC
from ..targets.microarchitectures import identify
from ..targets.nvidia import PRESETS
from ..tune.records import Store


def measured_on(target: dict, device: dict) -> dict:
    """The wave's target as its device turned out: its own name and threads, and thereby its own fingerprint.

    `target` is the JSON of the wave's target, `device` the facts that run.py wrote.
    """
    name = _card(device["card"]) if target["family"] == "cuda" else _processor(device)
    return _named(target, name, target.get("threads", 1) if target["family"] == "cuda" else device["threads"])


def continued(target: dict, store: Store, operators: Iterable[str], device: str | None = None) -> dict:
    """The target of the next wave: that of the device on which earlier waves for `target` were measured, the target itself if there are none.

    `device` is a fingerprint. Raises TuneError if records of several devices could be meant.
    """
    found = {}
    for operator in dict.fromkeys(operators):
        for group in store.records(target["family"], operator):
            for record in group:
                if record.get("made_for") == target["fingerprint"]:
                    found[record["target"]] = (record["microarchitecture"], record["threads"])
    if device is not None:
        if device not in found and device != target["fingerprint"]:
            raise TuneError(f"no wave for {target['fingerprint']} was measured on {device}" + (f"; known: {', '.join(sorted(found))}" if found else ""))
        found = {device: found[device]} if device in found else {}
    if len(found) > 1:
        raise TuneError(f"waves for {target['fingerprint']} were measured on {', '.join(sorted(found))}; say which one is meant (--device)")
    return _named(target, *next(iter(found.values()))) if found else target


def _named(target: dict, name: str, threads: int) -> dict:
    made = replace(Target.from_json(target), microarchitecture=name, threads=threads)
    return {**target, **made.to_json()}


def _processor(device: dict) -> str:
    if device["implementer"]:
        return CORES.get((int(device["implementer"], 0), int(device["part"] or "0", 0)), GENERIC).name
    known = identify(device["vendor"], device["cpu_family"], device["model"], frozenset(device["flags"]))
    return known.name if known else "generic"


def _card(name: str) -> str:
    """The name that a preset has for a card where there is one: NVIDIA H100 80GB HBM3 → h100; else the driver's words for it."""
    words = re.sub(r"[^a-z0-9]+", "-", re.sub(r"nvidia|geforce|tesla|quadro", " ", name.lower())).strip("-")
    known = [card for card in PRESETS if f"-{words}-".startswith(f"-{card}-")]
    return max(known, key=len, default=words or "generic")
