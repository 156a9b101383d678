#!/usr/bin/env bash
# Measures everything that docs/performance.md says about a GPU: patches of 128³, mixed precision and torch.compile (both
# are the defaults on a GPU, nnU-Net's and ours). Prints the device, then one line of JSON per measurement; takes about
# ten minutes.
#
#     tests/performance/on_gpu.sh [PYTHON]
#
# DEVICE=cpu PATCH=32 FEATURES=8 SIZE=48 tries the script itself without one.
set -euo pipefail
python=$(command -v "${1:-python}")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
cd "$(dirname "$0")"
device=${DEVICE:-cuda}
plan=(--device "$device" --patch "${PATCH:-128}" --features "${FEATURES:-32}" --size "${SIZE:-160}" --cases 4)
processes=${PROCESSES:-$(($(nproc) > 12 ? 12 : $(nproc)))}

"$python" -c "import torch; print(torch.cuda.get_device_name() if '$device' != 'cpu' else 'CPU', 'torch', torch.__version__)"
run() { "$python" "$@" | tail -n 1; }
run step.py "${plan[@]}" --steps 10 --runs 7
run memory.py --device "$device"
run checkpoint.py "${plan[@]}"
run loader.py "${plan[@]}" --processes "$processes" --batches 100 --runs 3
run epoch.py "${plan[@]}" --processes "$processes" --iterations 50 --runs 3
# one case of BraTS' size with the full-size networks; Swin UNETR needs the extra "backbones"
"$python" estimators.py "${plan[@]}" --volume "${VOLUME:-160}" --samples 20 --full "${FULL:-1}" --runs 3
