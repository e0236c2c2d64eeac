"""Finds the installed package that provides a signal, without loading it."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points

from agent.errors import ConfigError

GROUP = "trimtab.signals"
_PLAIN = re.compile(r"[A-Za-z0-9._+-]{1,64}")


def find_signal(name: str) -> EntryPoint:
    """Return the entry point of a signal, without loading it. Raises ConfigError if none is
    installed, or more than one.
    """
    found = {(entry.value, _origin(entry)): entry for entry in entry_points(group=GROUP, name=name)}
    if not found:
        raise ConfigError(
            f"signals.{name}: no installed package has the entry point {name} in {GROUP}",
            "install the package, or correct the name; see docs/signals.md",
        )
    if len(found) > 1:
        named = ", ".join(sorted(origin for _, origin in found))
        raise ConfigError(
            f"signals.{name}: {named} provide it", "uninstall all but one of these packages"
        )
    return next(iter(found.values()))


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
