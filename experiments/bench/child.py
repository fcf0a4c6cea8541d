"""One contender in a process of its own: ``python experiments/bench/child.py JSON``, driven through its stdin.

It says ``ready`` after its first steps; to each line with a number of seconds it answers with images and seconds.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

WARM_UP = 3
"""Steps before the first measurement: lazily made buffers, and a compiled step's compilation."""


def main(text: str) -> None:
    """Serve measurements until stdin ends."""
    asked: dict[str, Any] = json.loads(text)
    say = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        import torch

        torch.set_num_threads(asked["threads"])
        from contenders import CONTENDERS
        from rounds import Setting

        from kdbench.host import keep_heap

        keep_heap()  # as a sweep's workers do; all contenders alike
        steps = CONTENDERS[asked["contender"]](Setting(**asked["task"]))
        for _ in range(WARM_UP):
            next(steps)
        print("ready", file=say, flush=True)
        for line in sys.stdin:
            images, start = 0, time.perf_counter()
            while time.perf_counter() - start < float(line):
                images += next(steps)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            print(json.dumps({"images": images, "seconds": time.perf_counter() - start}), file=say, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
