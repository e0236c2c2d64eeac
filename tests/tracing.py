"""What coverage looks away from: measuring it would cost more than it could still find.

Whatever is not measured counts as not covered, so that the thresholds of `make cover` only become harder to reach.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from hypothesis.core import StateForActualGivenExecution

TRACED = 10
"""Examples of a property that are measured; the others run the same lines with other numbers."""


def untraced(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call while coverage looks away."""

    @functools.wraps(call)
    def run(*arguments: Any, **named: Any) -> Any:
        tracer = sys.gettrace()
        if type(tracer).__name__ != "CTracer":  # coverage's own; no debugger's is touched
            return call(*arguments, **named)
        sys.settrace(None)
        try:
            return call(*arguments, **named)
        finally:
            tracer.start()  # type: ignore[union-attr]  # see above

    return run


def _first_examples(execute: Callable[..., Any]) -> Callable[..., Any]:
    away, counts = untraced(execute), "examples_measured"

    @functools.wraps(execute)
    def run(state: Any, *arguments: Any, **named: Any) -> Any:
        done = getattr(state, counts, 0)
        setattr(state, counts, done + 1)
        return (execute if done < TRACED else away)(state, *arguments, **named)

    return run


def _child() -> None:
    """A forked child ends without saving what was measured in it."""
    if type(sys.gettrace()).__name__ == "CTracer":
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # none is a hook too


def look_away() -> None:
    """From py-evm, none of which is ours; from all but the first examples of a property; from forked children."""
    with contextlib.suppress(ImportError):  # tests that need eth-tester say themselves that it is missing
        from eth_tester import EthereumTester
        from web3 import EthereumTesterProvider

        for owner, name in ((EthereumTesterProvider, "make_request"), (EthereumTester, "mine_blocks")):
            setattr(owner, name, untraced(getattr(owner, name)))
    StateForActualGivenExecution.execute_once = _first_examples(StateForActualGivenExecution.execute_once)  # type: ignore[method-assign]
    os.register_at_fork(after_in_child=_child)
