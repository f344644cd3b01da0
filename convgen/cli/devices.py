"""`convgen devices` and `convgen device serve | tracker`: other machines to measure on."""

from __future__ import annotations

import secrets

from .output import common, note, show, table

DANGER = ("whoever can connect may run any program here: listen on 127.0.0.1 and connect by an SSH tunnel, or stay on a network that is yours "
          "alone; the traffic is not encrypted and the key is no password")


def add(verbs) -> None:
    devices = common(verbs.add_parser("devices", help="list the servers of a tracker and try each with a small kernel"), _devices)
    devices.add_argument("--rpc", required=True, metavar="HOST:PORT", help="the tracker")
    devices.add_argument("--key", help="only servers of this key are tried (default: keys are listed)")
    devices.add_argument("--target", default="native", help="what the kernel is built for, see `convgen targets` (default native)")
    devices.add_argument("--threads", type=int, help="threads that kernels will use (default: the target's)")
    devices.add_argument("--wait", type=float, default=20.0, metavar="S", help="seconds that a busy server may take to be free (default 20)")

    device = verbs.add_parser("device", help="make this machine one to measure on: serve, tracker")
    actions = device.add_subparsers(dest="action", metavar="serve|tracker", required=True, parser_class=type(device))
    serve = common(actions.add_parser("serve", help="measure kernels that others send, until Ctrl-C", epilog=DANGER), _serve)
    serve.add_argument("--tracker", required=True, metavar="HOST:PORT", help="where to register")
    serve.add_argument("--key", help="the name that clients ask for (default: a random one, printed)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default: the first free one from 9091)")
    serve.add_argument("--advertise", metavar="HOST", help="address that clients are told (default: the one that the tracker sees)")
    serve.add_argument("--threads", type=int, help="threads of kernels (default: all usable here)")
    tracker = common(actions.add_parser("tracker", help="hand out servers to those who tune, until Ctrl-C", epilog=DANGER), _tracker)
    tracker.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    tracker.add_argument("--port", type=int, help="port to listen on (default: the first free one from 9190)")


def _devices(options) -> int:
    from ..remote import address
    from ..targets import resolve
    if options.key is None:
        from ..remote.devices import registered
        rows = registered(address.Tracker(*address.parse(options.rpc), ""))
        show(options, rows, table([(r["server"], r["key"]) for r in rows], ("server", "key")) if rows else None)
        note(options, "--key KEY tries the servers of a key with a kernel" if rows else f"no server is registered at {options.rpc}")
        return 0 if rows else 1
    from ..remote.devices import devices
    target = resolve(options.target)
    target = target.with_threads(options.threads) if options.threads else target
    rows = devices(address.tracker(options.rpc, options.key), target.to_json(), options.wait)
    show(options, rows, table([_row(r) for r in rows], ("server", "machine", "kernel us", "round trip s", "")) if rows else None)
    if not rows:
        note(options, f"no server with the key {options.key!r} is registered at {options.rpc}")
    return 0 if rows and not any(row["error"] for row in rows) else 1


def _row(row: dict) -> tuple:
    facts = row["facts"]
    machine = f"{facts['name']} ({facts['architecture']}, {facts['threads']} threads)" if facts else "unknown"
    us = "" if row["us"] is None else f"{row['us']:.1f}"
    remark = row["error"] or ("works; emulated, its times mean nothing" if facts.get("emulated") else "works")
    return row["server"], machine, us, "" if row["seconds"] is None else f"{row['seconds']:.2f}", remark


def _serve(options) -> None:
    from ..remote import address, server
    _warn(options)
    key = options.key or f"convgen-{secrets.token_hex(8)}"
    tracker = address.tracker(options.tracker, key)

    def ready(port: int) -> None:
        note(options, f"serving on {options.host}:{port}, registered at {tracker} under the key {key}; Ctrl-C ends it")

    server.serve((tracker.host, tracker.port), key, options.host, options.port, options.advertise, options.threads, ready=ready)


def _tracker(options) -> None:
    from ..remote import tracker
    _warn(options)

    def ready(port: int) -> None:
        note(options, f"tracking at {options.host}:{port}; Ctrl-C ends it\nstart servers with: convgen device serve --tracker {options.host}:{port} "
                      f"--key convgen-{secrets.token_hex(8)}")

    tracker.track(options.host, options.port, ready=ready)


def _warn(options) -> None:
    from ..remote.address import LOOPBACK
    if options.host not in LOOPBACK:
        import sys
        print(f"convgen: listening on {options.host}: {DANGER}", file=sys.stderr)
