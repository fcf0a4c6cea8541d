"""The command line: one thin module a verb (parse, call, print), errors as one line, three ways to watch a sweep.

``main`` (entry point and error handling), ``view`` (what a running sweep shows), ``common`` (what verbs share).
Nothing here imports torch before a verb needs it.
"""

from __future__ import annotations
