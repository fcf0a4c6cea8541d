#!/usr/bin/env bash
# Speed on a GPU with CIFAR-sized data (50,000 images as 3 x 32 x 32; what they show does not matter for speed): a trial
# beside the bare step, eager and graph-captured, and beside other loops. Records go to results/records/bench-cuda-*.
set -euo pipefail
cd "$(dirname "$0")/.."
for student in cifar_resnet20 cifar_resnet8x4 mobilenetv3_small_100; do
    python -m kdbench bench --device cuda --dataset fashion-mnist --limit 50000 --pair "resnet50:$student" \
        --out "results/records/bench-cuda-$student"
done
