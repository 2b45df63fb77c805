#!/bin/sh
# The device tests, and then the figures of docs/results/gpu.json, on one NVIDIA GPU. No network; at most 8 minutes.
#
#   benchmarks/gpu/run.sh
#
# PYTHON          interpreter with a CUDA build of torch and what `pip install '.[dev]'` installs, by default
#                 .venv/bin/python (`make env` installs torch for CPUs; for CUDA: .venv/bin/pip install --force-reinstall
#                 torch). Penstock itself need not be installed: the packages of this checkout are used.
# PENSTOCK_COMMIT the commit, where this is a copy without git.
#
# Ends with 0 when all tests passed and all figures were taken; no test is skipped for want of a GPU.
set -u
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
root=$(pwd)
started=$(date +%s)
left() { echo $(($1 + started - $(date +%s))); }

export PYTHONPATH="$root/clients:$root/server:$root/solver_adapters:$root/deploy${PYTHONPATH:+:$PYTHONPATH}"
export PENSTOCK_REQUIRE_GPU=1
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export TORCHINDUCTOR_CACHE_DIR="$logs/torch" # compiled anew each time, and left nowhere

"$PYTHON" -c 'import sys, torch
if not torch.cuda.is_available():
    sys.exit(f"{sys.executable}: torch {torch.__version__} finds no GPU: expected a CUDA build and an NVIDIA driver; set PYTHON")
print(torch.cuda.get_device_name(), "torch", torch.__version__, "CUDA", torch.version.cuda)' || exit 2

timeout 240 "$PYTHON" -m pytest -m gpu -q -p no:cacheprovider tests/server >"$logs/tests" 2>&1
tests=$?
cat "$logs/tests"
timeout "$(left 465)" env TORCHINDUCTOR_COMPILE_THREADS=8 "$PYTHON" benchmarks/gpu/figures.py --seconds "$(left 440)" --tests "$(tail -n 1 "$logs/tests")"
figures=$?
echo "tests ended with $tests, figures with $figures, after $((480 - $(left 480))) s"
[ "$tests" = 0 ] && [ "$figures" = 0 ]
