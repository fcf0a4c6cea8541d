"""What the server imports that workers are forked from: all that they need, out of the garbage collector's way."""

from __future__ import annotations

import gc

gc.disable()  # it would walk torch's and timm's objects again and again while they are made

import kdbench.run.worker  # noqa: E402, F401

gc.freeze()  # and in every worker, whose copies of their pages they would become
gc.enable()
