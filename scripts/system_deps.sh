#!/bin/sh
# Install the system packages of a list when root on Debian; otherwise name what is missing and go on.
# usage: sh scripts/system_deps.sh [scripts/system-packages.txt]
set -eu

list=${1:-$(dirname "$0")/system-packages.txt}
PATH=$PATH:/usr/sbin:/sbin  # where ldconfig is, also for those who are not root
libraries=""
if command -v ldconfig >/dev/null 2>&1; then libraries=$(ldconfig -p); fi

missing=""
packages=""
while read -r name package; do
    case "$name" in '' | '#'*) continue ;; esac
    if command -v "$name" >/dev/null 2>&1; then continue; fi
    case "$libraries" in *"$name "*) continue ;; esac
    missing="$missing $name"
    packages="$packages $package"
done <"$list"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "setup: installing$packages"
    apt-get update -qq
    # shellcheck disable=SC2086  # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
    exit 0
fi
echo "setup: missing on this system:$missing; install them (Debian packages:$packages)" >&2
