"""`convgen targets`: what kernels can be made for, and what this machine is."""

from __future__ import annotations

from ..errors import TargetError
from .output import common, show, table


def add(verbs) -> None:
    parser = common(verbs.add_parser("targets", help="list targets, or describe one"), _targets)
    parser.add_argument("target", nargs="?", help="a target; default: list all")


def _targets(options) -> None:
    from ..targets import NAMES, Target, resolve
    if options.target:
        target = resolve(options.target)
        facts = target.to_json() | {"missing_here": Target.runs_here(target.features)}
        return show(options, facts, table((key, _text(value)) for key, value in facts.items()))
    rows = []
    for name in NAMES:
        try:
            target = resolve(name)
            rows.append((name, target.fingerprint, target.mcpu, _here(target)))
        except TargetError as error:
            rows.append((name, "", "", str(error)))
    show(options, [dict(zip(("name", "fingerprint", "mcpu", "status"), row)) for row in rows], table(rows))


def _here(target) -> str:
    """Whether code for a target runs on this machine."""
    if target.family == "cuda":
        from ..runtime.variants import cuda_obstacle
        why = cuda_obstacle(target.to_json())
        return f"not here: {why}" if why else "runs here"
    missing = target.runs_here(target.features)
    return f"lacks {', '.join(missing)} here" if missing else "runs here"


def _text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
