"""Installed signals: distributions with entry points in a folder of sys.path, without pip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "signals"


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, entries: Mapping[str, str], source: str = "", name: str = "own-signals") -> None:
    """Install a distribution with these entry points; `source` is its module own_signals."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{entry} = {target}\n" for entry, target in entries.items())
    (info / "entry_points.txt").write_text(f"[trimtab.signals]\n{lines}")
    if source:
        (folder / "own_signals.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))


def install_examples(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Install the two examples."""
    parts = {"trend": "trimtab_signal_examples.trend:targets", "mean-reversion": "trimtab_signal_examples.mean_reversion:targets"}
    install(monkeypatch, folder, parts, name="trimtab-signal-examples")
    monkeypatch.syspath_prepend(str(EXAMPLES))
