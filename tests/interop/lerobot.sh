#!/bin/sh
# Hold this library against the real LeRobot: datasets both ways, an environment, a policy.
# usage: sh tests/interop/lerobot.sh [pytest options]
# Exit status: 0 both agree, 77 LeRobot cannot be installed here (the reason is printed), anything else a failure.
#
# LeRobot's requirements exclude those of this project (torch < 2.11, av < 16, NumPy < 2.3, huggingface-hub < 0.36), so it
# has a virtual environment of its own, in SWM_INTEROP_VENV (default: the user's cache). Its large compiled packages are
# linked from the project's environment: LeRobot refuses torch 2.13 only in its metadata. About 100 MB are downloaded.
set -eu

LEROBOT=0.4.4 # the newest for Python 3.10 and 3.11; from 0.5 on it needs 3.12
TORCHVISION=0.25.0 # the newest that LeRobot 0.4.4 allows

cd "$(dirname "$0")/../.."
own=${SWM_VENV:-.venv}/bin/python
venv=${SWM_INTEROP_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/stable-worldmodel/interop}

impossible() {
    echo "interop: not possible here: $*" >&2
    exit 77
}

[ -x "$own" ] || impossible "$own is missing; run 'make setup' first"
"$own" -c 'import sys; sys.exit(sys.version_info >= (3, 12))' ||
    impossible "$("$own" --version) is not 3.10 or 3.11, for which lerobot $LEROBOT is pinned"

# What is installed is a function of these; anything else is set up anew.
wanted=$(cat tests/interop/lerobot.sh tests/interop/requirements.txt constraints.txt | "$own" -c '
import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read() + sys.base_prefix.encode() + sys.prefix.encode()).hexdigest())')
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
    echo "interop: installing lerobot $LEROBOT into $venv"
    "$own" -m venv --clear "$venv"
    "$own" tests/interop/link_packages.py "$venv" torch pyarrow pandas scipy h5py
    pip="$venv/bin/python -m pip --disable-pip-version-check install --quiet --quiet"
    $pip --requirement tests/interop/requirements.txt || impossible "its dependencies cannot be installed, see above"
    $pip --no-deps "lerobot==$LEROBOT" "torchvision==$TORCHVISION" || impossible "lerobot $LEROBOT cannot be installed"
    echo "$wanted" >"$venv/.installed"
fi
"$venv/bin/python" -c '
from importlib.metadata import version
print("interop:", *(f"{name} {version(name)}" for name in ("lerobot", "datasets", "av", "numpy", "torch", "torchvision")))'
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider --disable-warnings -o "pythonpath=tests tests/lerobot" \
    tests/interop/lerobot_data_conformance.py tests/interop/lerobot_policies_conformance.py "$@"
