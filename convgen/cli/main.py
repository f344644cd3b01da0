"""Parser and exit codes: 0 done, 1 failed, 2 usage, 3 requirement unmet, 130 interrupted."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from typing import Sequence

from .. import __version__
from ..errors import ArgumentError, Error

# One module per verb or small group; each has `add(verbs)`, which adds its parsers.
_MODULES = ("describe", "check", "trace", "tune", "wave", "build", "bench", "logs", "targets", "devices", "doctor")

OK, FAILED, USAGE, UNMET, INTERRUPTED = 0, 1, 2, 3, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USAGE)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(prog="convgen", description="Describe convolutions, tune them for a machine, ship small libraries to PyTorch.")
    top.add_argument("--version", action="version", version=f"convgen {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name in _MODULES:
        importlib.import_module(f".{name}", __package__).add(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (default: `sys.argv`) and return its exit code. Errors are one sentence on stderr."""
    try:
        options = parser().parse_args(arguments)
        logging.basicConfig(level=logging.ERROR if options.quiet else logging.WARNING, format="convgen: %(message)s", stream=sys.stderr)
        return options.run(options) or OK
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else OK
    except KeyboardInterrupt:
        print("convgen: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (Error, OSError, ImportError) as error:
        print(f"convgen: {sentence(error)}", file=sys.stderr)
        return USAGE if isinstance(error, ArgumentError) else UNMET if isinstance(error, ImportError) else FAILED


def sentence(error: BaseException) -> str:
    """An exception as one line."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = {"torch": "torch", "tvm": "tune", "xgboost": "tune", "onnxruntime": "bench", "tornado": "device"}.get(error.name.partition(".")[0])
        return f"this needs the module {error.name}" + (f": pip install 'convgen[{extra}]'" if extra else "")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())
