#!/bin/sh
# Create a virtual environment and install this package in it, editable, at the versions of constraints.txt.
# usage: PYTHON=python3 sh scripts/setup.sh [.venv]
set -eu

venv=${1:-.venv}
python=${PYTHON:-python3}

fail() {
    echo "setup: $*" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "$python not found: install Python >= 3.10, or name it: make PYTHON=/path/to/python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version 2>&1) is too old: expected Python >= 3.10; name another: make PYTHON=/path/to/python"

sh scripts/system_deps.sh

if [ ! -x "$venv/bin/python" ]; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module: install it (on Debian: apt-get install python3-venv)"
    "$python" -m venv "$venv"
fi

echo "setup: installing into $venv (minutes, the first time)"
# Dependency groups need pip >= 25.1; pip is pinned like everything else.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
    --group dev --group docs --editable '.[backbones,cluster,data,env,hub,planning,report,train]'
