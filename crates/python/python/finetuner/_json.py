"""Arguments as JSON: paths as texts, numpy's numbers as numbers."""

from __future__ import annotations

import json
import os
from typing import Any

from .exception import SpecError


def dumps(value: Any) -> str:
    """JSON of a call's arguments."""
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except ValueError as error:
        raise SpecError(f"expected finite numbers and nothing that contains itself, got {value!r}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"expected texts, numbers, lists and dicts, got {type(value).__name__}: {value!r}")
