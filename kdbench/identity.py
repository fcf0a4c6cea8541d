"""Canonical JSON and the ids made from it: equal ids mean the same run."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

ID_LENGTH = 12


def canonical_json(value: Any) -> str:
    """``value`` (a pydantic model or plain JSON data) as JSON with sorted keys and no spaces.

    Floats keep Python's shortest round-trip form, so the text is the same on every machine.

    Raises:
        ValueError: for NaN or infinity, which have no place in an identity.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def identify(value: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:ID_LENGTH]
