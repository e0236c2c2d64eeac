"""Makes uniswap-python 0.7.1, which was written for web3 6, importable under web3 7; its quotes are the same under both."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

_CACHE = "web3.middleware.cache"


@contextmanager
def web3_6_names() -> Iterator[None]:
    """While it lasts, web3 7 has the two names of web3 6 that uniswap-python imports; afterwards web3 is as it was.

    They are `web3.middleware.cache.construct_simple_cache_middleware`, called only with caching on, which is never so here, and
    `web3.types.Middleware`, an annotation. Under web3 6 nothing is done.
    """
    import web3.types

    if importlib.util.find_spec(_CACHE) is not None:
        yield
        return
    cache: Any = ModuleType(_CACHE)
    cache.construct_simple_cache_middleware = _no_caching
    types: Any = web3.types
    had = vars(types).get("Middleware")
    sys.modules[_CACHE], types.Middleware = cache, had or Any
    try:
        yield
    finally:
        del sys.modules[_CACHE]
        if had is None:
            del types.Middleware


def _no_caching(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("uniswap-python caches only under web3 6")
