#!/usr/bin/env bash
# Speed on a GPU with CIFAR-sized data: a trial beside the bare step, eager and graph-captured,
# and beside other loops; then the hours that the whole table of the CRD paper would take.
# Records go to results/records/bench-cuda-*. Further words are handed on: experiments/bench-gpu.sh --rounds 3
# DEVICE=cpu tries the script where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda}
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

# 60,000 images of noise in CIFAR-10's own layout: what they show does not matter for speed
python - "$data" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np

folder = Path(sys.argv[1]) / "cifar10" / "cifar-10-batches-bin"
folder.mkdir(parents=True)
rng = np.random.default_rng(0)
for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
    records = rng.integers(0, 256, (10_000, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(10_000) % 10
    (folder / f"{name}.bin").write_bytes(records.tobytes())
PYTHON

export KDBENCH_DATA=$data
for student in cifar_resnet20 cifar_resnet8x4 mobilenetv3_small_100; do
    python experiments/bench/run.py --device "$device" --dataset cifar10 --limit 45000 --pair "resnet50:$student" \
        --out "results/records/bench-$device-$student" "$@"
done
# seven pairs of one architecture, five seeds, hard labels and distilled, 240 epochs
unset KDBENCH_DATA
python -m kdbench reproduce cifar100-crd --device "$device" --dry-run
