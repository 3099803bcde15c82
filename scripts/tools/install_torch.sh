#!/bin/sh
# Usage: install_torch.sh BIN REQUIREMENTS
# Installs the pinned torch before all other packages; without an NVIDIA card, the build without CUDA.
# A dry run shows which build pip would install. On macOS, Windows and Arm, and with an index of CPU builds, pip already
# chooses the CPU build. Otherwise uv fetches it, because uv knows PyTorch's own index of CPU builds.
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
        echo "no NVIDIA card found: installing the CPU build of $torch"
        "$bin/python" -m pip install --quiet --disable-pip-version-check "$uv"
        exec "$bin/python" -m uv pip install --quiet --python "$bin/python" --torch-backend cpu "$torch"
        ;;
    esac
fi
exec "$bin/python" -m pip install --quiet --disable-pip-version-check "$torch"
