#!/usr/bin/env bash
# What a GPU is for: the CRD paper's table on CIFAR-sized data, to results/records/bench-cuda-crd (minutes).
# A trial beside other loops: python experiments/bench/run.py --device cuda. DEVICE=cpu tries the script without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda}
python experiments/bench/crd.py --device "$device" --out "results/records/bench-$device-crd" "$@"
