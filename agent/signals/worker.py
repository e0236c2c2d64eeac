"""Process that runs one signal: one view per line on stdin, one answer per line on stdout. Started
as `python -m agent.signals.worker NAME`, it finds the entry point NAME of the group
`trimtab.signals` in the metadata of packages, and loads only that one; as `… PATH FUNCTION SHA256`
it runs a file with that hash. Output printed by the signal goes to stderr.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from agent.calls import has_items
from agent.errors import ConfigError
from agent.model import PriceBar, Signal, SignalTargets, SignalView

ENTRY_POINT_GROUP = "trimtab.signals"
_PLAIN_TEXT_PATTERN = re.compile(r"[A-Za-z0-9._+-]{1,64}")


def find_signal(name: str) -> EntryPoint:
    """Return the entry point of a signal, without loading it. Raises ConfigError if none is
    installed, or more than one.
    """
    entry_point_by_source = {
        (entry_point.value, _package_text(entry_point)): entry_point
        for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=name)
    }
    if not entry_point_by_source:
        raise ConfigError(
            f"signals.{name}: no installed package has the entry point {name} in {ENTRY_POINT_GROUP}",
            "install the package, or correct the name; see docs/signals.md",
        )
    if len(entry_point_by_source) > 1:
        packages_text = ", ".join(sorted(package_text for _, package_text in entry_point_by_source))
        raise ConfigError(
            f"signals.{name}: {packages_text} provide it", "uninstall all but one of these packages"
        )
    return next(iter(entry_point_by_source.values()))


def read_pinned(path: Path, sha256: str) -> bytes:
    """Return a file that has this hash. Raises ConfigError if it has another one or cannot be read."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"its file {path.name} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(source).hexdigest()
    if digest != sha256:
        raise ConfigError(
            f"its file {path.name} has the SHA-256 {digest}, not the one of the config: write it there"
            " if the change is yours"
        )
    return source


@cache
def load_file(path: Path, function_name: str, sha256: str) -> Signal:
    """Return a function of a file that has this hash. What is run is what was hashed. Raises
    ConfigError like read_pinned, or if it has no such function.
    """
    source = read_pinned(path, sha256)
    module = ModuleType(f"signal_file_{sha256}")  # no name of another module
    sys.modules[module.__name__] = module  # where dataclasses look for the names of their fields
    code = compile(source, path.name, "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102  the owner's, pinned
    function: Signal | None = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"its file {path.name} has no function {function_name}")
    return function


def signal_package(name: str) -> str:
    """Return the distribution and version that provide a signal. Raises ConfigError like
    find_signal.
    """
    return _package_text(find_signal(name))


def _package_text(entry_point: EntryPoint) -> str:
    if entry_point.dist is None:
        return "an unknown package"
    name_and_version = (entry_point.dist.name, entry_point.dist.version)
    return " ".join(
        name_or_version if _PLAIN_TEXT_PATTERN.fullmatch(name_or_version) else "?"
        for name_or_version in name_and_version
    )


MAX_REASON_LENGTH = 200


def parse_view(view_document: Mapping[str, Any]) -> SignalView:
    """Parse a line as a view."""
    prices = {
        symbol: tuple(PriceBar(at_s, close) for at_s, close in price_bars)
        for symbol, price_bars in view_document["prices"].items()
    }
    return SignalView(
        view_document["now_s"],
        view_document["numeraire"],
        prices,
        view_document["weights"],
        view_document["futures"],
        view_document["markets"],
        view_document["options"],
        tuple(view_document["free"]),
        view_document["targets"],
    )


def answer_view(load: Callable[[], Signal], view_line: str) -> dict[str, Any]:
    """Return the targets for one view as JSON, or the reason if there are none."""
    try:
        view = parse_view(json.loads(view_line))
        return _finite_document(targets_document(load()(view), view))
    except ConfigError as error:
        return {"why": error.message[:MAX_REASON_LENGTH]}
    except Exception as error:  # any error in a signal means no new targets
        return {"why": f"it raised {raised_text(error)}"}


def raised_text(error: Exception) -> str:
    """Return the kind of an error of a signal and the first line of its text: "KeyError: 'LINK'"."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}".removesuffix(": ")[:MAX_REASON_LENGTH]


def _finite_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return targets, or the reason if a weight is NaN or infinite, which JSON cannot say."""
    for weights in (document.get("spot"), document.get("futures")):
        for name, weight in (weights or {}).items():
            if not math.isfinite(weight):
                return {"why": f"the weight of {name} is {weight}, no finite number"}
    return document


def targets_document(returned: Any, view: SignalView) -> dict[str, Any]:
    """Return what a signal has returned as JSON. A boolean, also one of NumPy, is that of a trigger.
    Of a mapping or a Series of pandas, which is of spot weights, the numeraire gets what they leave; for an empty one, or
    anything else than it or SignalTargets, the reason. Raises TypeError and ValueError for weights
    that are no numbers.
    """
    if type(returned).__name__ in ("bool", "bool_"):
        return {"is_due": bool(returned)}
    if has_items(returned):
        weights = _float_weights(dict(returned.items()))
        if not weights:
            remedy_text = f' (write {{"{view.numeraire}": 1}} for cash alone)'
            is_free = view.numeraire in view.free
            return {"why": f"it returned no weights{remedy_text if is_free else ''}"}
        rest = 1.0 - sum(weights.values())
        if view.numeraire not in weights and view.numeraire in view.free and rest > 0:
            weights[view.numeraire] = rest
        return {"spot": weights, "futures": None}
    if not isinstance(returned, SignalTargets):
        return {"why": f"it returned {type(returned).__name__}, not SignalTargets"}
    return {
        "spot": None if returned.spot is None else _float_weights(returned.spot),
        "futures": None if returned.futures is None else _float_weights(returned.futures),
    }


def _float_weights(weight_by_name: Mapping[str, Any]) -> dict[str, float]:
    floats = {}
    for name, weight in weight_by_name.items():
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is no symbol")
        fault = TypeError(f"the weight of {name!r} is {type(weight).__name__}")
        if isinstance(weight, bool | str):
            raise fault
        try:
            floats[name] = float(weight)
        except TypeError:
            raise fault from None
        except OverflowError:
            raise ValueError(f"the weight of {name!r} is too large") from None
    return floats


def main(load: Callable[[], Signal], view_lines: TextIO, answer_stream: TextIO) -> None:
    """Answer each line until the input ends."""
    for line in view_lines:
        answer_stream.write(json.dumps(answer_view(load, line)) + "\n")
        answer_stream.flush()


if __name__ == "__main__":
    answer_stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, *file_arguments = sys.argv[1:]
    load: Callable[[], Signal]
    if file_arguments:
        path, function_name, sha256 = file_arguments
        load = partial(load_file, Path(path), function_name, sha256)
    else:
        load = find_signal(name).load
    main(load, sys.stdin, answer_stream)
