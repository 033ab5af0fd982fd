#!/bin/sh
# Test the environments whose packages do not fit beside the others: Craftax and the rocket of PyFlyt.
# usage: sh tests/interop/optional_envs.sh [pytest options]
# Exit status: 0 they pass, 77 their packages cannot be installed here (the reason is printed), anything else a failure.
#
# craftax asks for pygame, whose files pygame-ce overwrites, and PyFlyt for NumPy 1, in their metadata only. So they have
# a virtual environment of their own, in SWM_OPTIONAL_ENVS_VENV (default: the user's cache), without what they do not
# import. Everything else it sees in the project's environment. About 260 MB are downloaded.
set -eu

cd "$(dirname "$0")/../.."
own=${SWM_VENV:-.venv}/bin/python
venv=${SWM_OPTIONAL_ENVS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/stable-worldmodel/optional-envs}

impossible() {
    echo "optional envs: not possible here: $*" >&2
    exit 77
}

[ -x "$own" ] || impossible "$own is missing; run 'make setup' first"
"$own" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    impossible "$("$own" --version) is older than 3.11, which jax of requirements-envs.txt needs"

# What is installed is a function of these; anything else is set up anew.
wanted=$(cat tests/interop/optional_envs.sh tests/interop/requirements-envs.txt | "$own" -c '
import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read() + sys.base_prefix.encode() + sys.prefix.encode()).hexdigest())')
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
    echo "optional envs: installing into $venv"
    "$own" -m venv --clear "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --quiet --no-deps --only-binary :all: \
        --requirement tests/interop/requirements-envs.txt || impossible "their packages cannot be installed, see above"
    packages='import sysconfig; print(sysconfig.get_path("purelib"))'
    "$own" -c "$packages" >"$("$venv/bin/python" -c "$packages")/project.pth"
    echo "$wanted" >"$venv/.installed"
fi
"$venv/bin/python" -c '
from importlib.metadata import version

import craftax.craftax_env, PyFlyt.gym_envs  # else the tests would be skipped

names = ("craftax", "jax", "PyFlyt", "pybullet", "numba", "numpy")
print("optional envs:", *(f"{name} {version(name)}" for name in names))'
# JAX keeps programs by their content and its version; they are machine code, so each kind of processor has its own.
processor=$(grep -m 1 '^flags' /proc/cpuinfo 2>/dev/null | cksum | cut -d ' ' -f 1)
export JAX_COMPILATION_CACHE_DIR="$venv/compiled/$processor" OMP_NUM_THREADS=1
# The tests of a class share its programs, so they stay in one process.
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider --disable-warnings -n 2 --dist loadscope \
    tests/envs/test_craftax_contract.py tests/envs/test_rocket_landing_contract.py "$@"
