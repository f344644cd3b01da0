"""Every code block of README.md and docs/ runs: Python blocks in order in one process, then shell blocks, in an empty folder.

A shell block followed by the comment `<!-- not run: reason -->` is left out; those are listed here, so that a new one is a decision.
"""

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = ["bash tools/quickstart.sh", "pip install .", "convgen check depthwise_conv2d --target cuda:sm_90 --shapes 3", "pip install ziglang", "pip install '.[device]'",
           "ssh -N -R 9190:127.0.0.1:9190 -L 9091:127.0.0.1:9091 board",
           "convgen export -o net.cvg conv2d N=1 C=64 O=64 H=56 W=56 k=3 padding=1 --target cuda:sm_80 --target cuda:sm_90 --target x86:avx2",
           "python -m convgen.bench.gpu --prepare visit --suite spine --target cuda:sm_90"]

needs_compiler = pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("tvm", "torch")), reason="needs convgen[tune,torch]")


@dataclass
class Block:
    """A fenced block: its page, the line where its text begins, and the reason why it is not run, if one is given."""

    page: Path
    line: int
    language: str
    text: str
    skipped: str | None

    @property
    def label(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks() -> list[Block]:
    """All fenced blocks of the pages, in order."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```\n(?:<!-- not run: (.+?) -->)?", text, re.M | re.S):
            found.append(Block(page, text.count("\n", 0, match.start(2)) + 1, match[1], match[2], match[3]))
    return found


BLOCKS = blocks()
SHELL = [b for b in BLOCKS if b.language == "sh" and not b.skipped]


def test_every_block_is_run_or_marked():
    assert {b.language for b in BLOCKS} == {"python", "sh", "text"}, "a fence names its language: python and sh are run, text is output"
    assert [b.text.split("  ")[0].splitlines()[0] for b in BLOCKS if b.skipped] == NOT_RUN
    assert all(b.language == "sh" for b in BLOCKS if b.skipped), "every Python block is run"
    fences = sum(page.read_text().count("```") for page in PAGES)
    assert fences == 2 * len(BLOCKS), "a fence is not at the start of a line, or not closed"


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text()
        headings = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, anchor = target.partition("#")
            assert (page.parent / file).exists() if file else anchor in headings, f"{page.name}: {target}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(folder, environment) in which the Python blocks have run; `convgen` and `python` are this interpreter's."""
    folder = tmp_path_factory.mktemp("readme")
    commands, home = folder / "bin", folder / "home"
    commands.mkdir()
    home.mkdir()
    for name, words in (("convgen", "-m convgen "), ("python", "")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        (commands / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "CONVGEN_LOGS", "CONVGEN_CACHE"):
        environment.pop(name, None)
    return folder, environment


@pytest.fixture(scope="module")
def played(place):
    """What the process of all Python blocks returned."""
    folder, environment = place
    parts = [(f"{b.page}", b.line, b.text) for b in BLOCKS if b.language == "python"]
    (folder / "blocks.py").write_text(
        f"for page, line, text in {parts!r}:\n"
        "    exec(compile('\\n' * (line - 1) + text, page, 'exec'), globals())\n")
    return subprocess.run([sys.executable, "blocks.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=550)


@needs_compiler
def test_python_blocks(played, place):
    assert played.returncode == 0, played.stderr[-4000:]
    assert "'depthwise_conv2d': 1" in played.stdout, "the fallback was counted"
    assert list((place[0] / "my_logs").rglob("depthwise_conv2d.jsonl")), "records went where the page says"


@needs_compiler
@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.label)
def test_shell_block(block, played, place):
    folder, environment = place
    if played.returncode:
        pytest.skip("the Python blocks failed")
    result = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, env=environment, capture_output=True, text=True, timeout=550)
    assert result.returncode == 0, f"{block.text}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    assert result.stdout


def test_no_block_writes_into_the_checkout(played, place):
    """Records of the examples belong to the reader, not to the tree."""
    folder, _ = place
    assert (folder / "home" / ".local" / "share" / "convgen" / "tuning_logs").is_dir()
