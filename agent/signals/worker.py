"""Process that runs one signal: one view per line on stdin, one answer per line on stdout. Started
as `python -m agent.signals.worker NAME`, it finds the entry point NAME of the group
`trimtab.signals` in the metadata of packages, and loads only that one. Output printed by the signal
goes to stderr.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, TextIO

from agent.errors import ConfigError
from agent.model import PriceBar, SignalTargets, SignalView

GROUP = "trimtab.signals"
_PLAIN = re.compile(r"[A-Za-z0-9._+-]{1,64}")


def find_signal(name: str) -> EntryPoint:
    """Return the entry point of a signal, without loading it. Raises ConfigError if none is
    installed, or more than one.
    """
    entries = {
        (entry.value, _origin(entry)): entry for entry in entry_points(group=GROUP, name=name)
    }
    if not entries:
        raise ConfigError(
            f"signals.{name}: no installed package has the entry point {name} in {GROUP}",
            "install the package, or correct the name; see docs/signals.md",
        )
    if len(entries) > 1:
        packages = ", ".join(sorted(origin for _, origin in entries))
        raise ConfigError(
            f"signals.{name}: {packages} provide it", "uninstall all but one of these packages"
        )
    return next(iter(entries.values()))


def signal_source(name: str) -> str:
    """Return the distribution and version that provide a signal. Raises ConfigError like
    find_signal.
    """
    return _origin(find_signal(name))


def _origin(entry: EntryPoint) -> str:
    if entry.dist is None:
        return "an unknown package"
    parts = (entry.dist.name, entry.dist.version)
    return " ".join(text if _PLAIN.fullmatch(text) else "?" for text in parts)


LONGEST_REASON = 200


def view_of(data: Mapping[str, Any]) -> SignalView:
    """Parse a line as a view with read-only mappings."""
    prices = {
        symbol: tuple(PriceBar(at_s, close) for at_s, close in bars)
        for symbol, bars in data["prices"].items()
    }
    return SignalView(
        data["now_s"],
        data["numeraire"],
        MappingProxyType(prices),
        MappingProxyType(data["weights"]),
        MappingProxyType(data["futures"]),
        MappingProxyType(data["markets"]),
        MappingProxyType(data["options"]),
        tuple(data["free"]),
    )


def answer(entry: EntryPoint, line: str) -> dict[str, Any]:
    """Return the targets for one view as JSON, or the reason if there are none."""
    try:
        targets = entry.load()(view_of(json.loads(line)))
        if not isinstance(targets, SignalTargets):
            return {"why": f"it returned {type(targets).__name__}, not SignalTargets"}
        return {"spot": _weights(targets.spot), "futures": _weights(targets.futures)}
    except Exception as error:  # any error in a signal means no new targets
        text = f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_REASON]
        return {"why": f"it raised {text}"}


def _weights(targets: Mapping[str, Any] | None) -> dict[str, float] | None:
    if targets is None:
        return None
    for name, weight in targets.items():
        if isinstance(weight, bool | str) or not isinstance(name, str):
            raise TypeError(f"the weight of {name!r} is {type(weight).__name__}")
    return {name: float(weight) for name, weight in targets.items()}


def main(name: str, lines: TextIO, out: TextIO) -> None:
    """Answer each line until the input ends."""
    entry = find_signal(name)
    for line in lines:
        out.write(json.dumps(answer(entry, line)) + "\n")
        out.flush()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    main(sys.argv[1], sys.stdin, answers)
