"""Documents without what is measured anew at each read."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Any

import pytest

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the API needs the extra dashboard", allow_module_level=True)


def without_latency(document: Any) -> Any:
    """A document without what is measured anew at each read, and without ages in its texts."""
    match document:
        case dict():
            return {key: without_latency(value) for key, value in document.items() if key not in ("latency_ms", "score")}
        case list():
            return [without_latency(item) for item in document]
        case str():
            return re.sub(r"\b\d+ s\b", "", document)
        case _:
            return document
