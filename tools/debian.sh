#!/usr/bin/env bash
# Installs Debian packages that are missing, where this machine lets us; says so where it does not.
# Never fails: what needs them skips itself, loudly.
# usage: tools/debian.sh PACKAGE...
set -uo pipefail

missing=()
for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

as_root=()
if [[ $(id -u) != 0 ]]; then
    as_root=(sudo -n)
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
export RUNLEVEL=1 # what is installed here shall not start to serve
if ! command -v apt-get >/dev/null ||
    ! { "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=60 install -y --no-install-recommends "${missing[@]}" ||
        { "${as_root[@]}" apt-get -qq update &&
            "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=60 install -y --no-install-recommends "${missing[@]}"; }; } >/dev/null 2>&1; then
    echo "setup: could not install ${missing[*]} (apt install ${missing[*]}); what needs them is skipped" >&2
fi
