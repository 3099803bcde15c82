#!/bin/sh
# Usage: install_torch.sh BIN REQUIREMENTS
# Installs the pinned torch before everything else: where there is no NVIDIA card, the build without CUDA.
# What pip would take is asked first, by a dry run. On macOS, Windows and Arm, and where an index serves the CPU build, it
# is the CPU build already; else uv, which knows where PyTorch keeps its CPU builds, fetches that one.
set -eu
bin=$1
torch=$(grep '^torch==' "$2" | cut -d' ' -f1)
uv='uv==0.13.9'

if "$bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '${torch#torch==}')" 2>/dev/null; then
    exit 0
fi
if ! command -v nvidia-smi >/dev/null 2>&1; then
    plan=$("$bin/python" -m pip install --disable-pip-version-check --dry-run "$torch" 2>/dev/null || true)
    case $plan in
    *nvidia-*)
        echo "no NVIDIA card here: installing the CPU build of $torch"
        "$bin/python" -m pip install --quiet --disable-pip-version-check "$uv"
        exec "$bin/python" -m uv pip install --quiet --python "$bin/python" --torch-backend cpu "$torch"
        ;;
    esac
fi
exec "$bin/python" -m pip install --quiet --disable-pip-version-check "$torch"
