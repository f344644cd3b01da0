#!/usr/bin/env bash
# Run the test suite in an environment of its own: tools/test.sh [pytest arguments].
# The environment is .venv-test, or $CONVGEN_VENV; it is filled once and again whenever pyproject.toml changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${CONVGEN_VENV:-.venv-test}
python=$venv/bin/python
stamp=$venv/.convgen-installed

if [ ! -x "$python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
if ! cmp -s pyproject.toml "$stamp"; then
    "$python" -m pip install --quiet --disable-pip-version-check -e '.[tune,torch,bench,device,dev]'
    cp pyproject.toml "$stamp"
fi
# Whole files to each process: fixtures that start servers or compilers serve one file.
exec "$python" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
