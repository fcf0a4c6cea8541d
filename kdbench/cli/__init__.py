"""The command line: parse, call, print; errors as one line.

``main`` (entry point, error handling), ``options`` (flags made from the fields of a model), ``common`` (what verbs
share). Nothing here imports torch before a verb needs it.
"""

from __future__ import annotations
