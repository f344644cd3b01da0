#!/usr/bin/env bash
# From a fresh machine (Python 3.10 or later, gcc) to three tuned layers on a photograph: tools/quickstart.sh [--output FOLDER] [--seconds S].
# The environment is .venv, or $CONVGEN_VENV. PIP_EXTRA_INDEX_URL can name an index with the CPU build of PyTorch.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

venv=${CONVGEN_VENV:-$root/.venv}
python=$venv/bin/python
stamp=$venv/.convgen-quickstart

if [ ! -x "$python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
if ! cmp -s "$root/pyproject.toml" "$stamp"; then
    # PyTorch alone first: the resolver then keeps this release, whatever else asks for torch.
    "$python" -m pip install --quiet --disable-pip-version-check torch==2.13.0
    "$python" -m pip install --quiet --disable-pip-version-check -e "$root[tune,torch,bench]"
    cp "$root/pyproject.toml" "$stamp"
fi
exec "$python" "$here/quickstart" "$@"
