#!/usr/bin/env bash
# A Ray cluster on this machine, with authentication.
#
#   cluster/local.sh start [OPTIONS OF rayrlhf up]
#   cluster/local.sh stop
#   cluster/local.sh submit COMMAND...        e.g. submit python jobs/ppo.py configs/ppo/NAME.yaml
#
# VENV names the environment (default .venv, made by `make install`).
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(cd "${VENV:-.venv}/bin" 2>/dev/null && pwd) || {
    echo "no environment at ${VENV:-.venv}; run 'make install' first" >&2
    exit 1
}
action=${1:-}
shift || true
case $action in
    start) exec "$bin/rayrlhf" up "$@" ;;
    stop) exec "$bin/rayrlhf" down "$@" ;;
    submit)
        # Where the cluster is, and the mode without which Ray's own CLI sends no token.
        eval "$("$bin/rayrlhf" up | grep export)"
        exec "$bin/ray" job submit --working-dir . -- "$@"
        ;;
    *)
        echo "usage: cluster/local.sh start|stop|submit COMMAND..." >&2
        exit 2
        ;;
esac
