#!/usr/bin/env bash
# Makes .venv from a lock file, or leaves it alone when nothing changed.
# usage: tools/setup.sh LOCK     (PYTHON=/path/to/python chooses the interpreter)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lock=$1
venv=.venv

# 3.14 is refused: it checks the C stack's bounds, and fibers run outside them.
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
fingerprint() { # of everything that decides what is in .venv
    { cat "$lock" pyproject.toml; "$venv/bin/python" -VV; pwd; } | sha256sum | cut -d' ' -f1
}

stamp="$venv/.made-from-$lock"
usable() { # whether .venv runs, and is of the interpreter that was asked for, if one was
    "$venv/bin/python" -c "$supported" 2>/dev/null || return 1
    [[ -z ${PYTHON:-} || $("$PYTHON" -VV 2>/dev/null) == "$("$venv/bin/python" -VV)" ]]
}
if usable; then
    [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]] && exit 0
else
    found=
    for python in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        command -v "$python" >/dev/null || continue
        "$python" -c "$supported" 2>/dev/null || continue
        if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            echo "setup: $python has no venv module (Debian, Ubuntu: apt install python3-venv)" >&2
            continue
        fi
        found=$python
        break
    done
    if [[ -z $found ]]; then
        echo "setup: isopod needs CPython 3.11, 3.12 or 3.13 with its venv module; none of" >&2
        echo "       '${PYTHON:-python3.11 python3.12 python3.13 python3}' is one." >&2
        echo "       Install one (apt install python3 python3-venv; or uv python install 3.12)," >&2
        echo "       or say which: make setup PYTHON=/path/to/python3.12" >&2
        exit 1
    fi
    echo "setup: making $venv with $("$found" -V)"
    "$found" -m venv --clear "$venv"
fi

echo "setup: installing what $lock holds"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install --require-hashes -r "$lock"
"${pip[@]}" install --no-deps -e .
fingerprint >"$stamp"
echo "setup: done"
