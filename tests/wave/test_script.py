"""run.py is one plain file that any Python since 3.8 runs without a package."""

import ast
import collections
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from convgen.wave import bundle
from convgen.wave.device import child
from convgen.wave.device.trouble import Trouble


def test_only_the_standard_library_and_nothing_named_twice():
    text = bundle.script()
    tree = ast.parse(text, feature_version=(3, 8))
    imported = {alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - {"torch"} <= set(sys.stdlib_module_names) and not any(node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    named = collections.Counter(name for node in tree.body for name in _names(node))
    assert [name for name, count in named.items() if count > 1] == []
    assert "convgen." not in text.replace("docs/", "") and text.startswith("#!/usr/bin/env python3\n")


def _names(node):
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []


def test_what_the_script_uses_is_in_it():
    tree = ast.parse(bundle.script())
    defined = {name for node in tree.body for name in _names(node)} | set(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__)
    defined |= {alias.asname or alias.name.partition(".")[0] for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    inner = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)} | {a.arg for n in ast.walk(tree) if isinstance(n, ast.arguments) for a in (*n.args, *n.kwonlyargs)}
    inner |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert calls - defined - inner == set()


STOPS = """
import os, signal, sys
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGSTOP)
print('{"ok": 1}', flush=True)
sys.stdin.readline()
for _ in iter(int, 1): pass
"""


def test_who_is_stopped_does_not_hang():
    """A limit is of seconds that the process runs: one that was stopped for longer answers in time, one that computes without end does not."""
    process = child.Child([sys.executable, "-I", "-S", "-c", STOPS], {}, dict(os.environ))
    number = process._process.pid

    def go_on():
        for _ in range(6000):
            if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                break
            time.sleep(0.01)
        time.sleep(0.8)
        os.kill(number, signal.SIGCONT)

    threading.Thread(target=go_on, daemon=True).start()
    try:
        assert process.ask(0.5, "anything") == 1
        with pytest.raises(Trouble, match="no result within 0.5 s"):
            process.ask(0.5, "anything")
    finally:
        process.end()
