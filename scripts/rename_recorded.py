"""Rename fields and types in the recorded steps of tests/golden. Used once, with the renames of this
commit: every other value stays, and the steps are read with the new names.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent import codec
from agent.store.files.recorder import load_recorded_step

STEPS = Path(__file__).resolve().parent.parent / "tests" / "golden" / "steps.tar.xz"
FIELDS = {"stuck": "blocked_exits", "sleeves": "strategies", "campaign": "execution"}
TYPES = {
    "Zone": "NoTradeZone",
    "Hybrid": "HybridTrigger",
    "Staged": "StagedTrigger",
    "OwnStrategy": "AgentCycle",
    "RaiseMoney": "RaiseForWithdrawal",
    "SellOut": "SellEntireBalance",
}


def renamed(value: Any) -> Any:
    """Return the value with new names of fields and of types."""
    if isinstance(value, list):
        return [renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    if clash := value.keys() & {new for old, new in FIELDS.items() if old in value}:
        raise ValueError(f"{clash} has both names")
    fields = {FIELDS.get(name, name): renamed(item) for name, item in value.items()}
    if (kind := fields.get("type")) in TYPES:
        fields["type"] = TYPES[kind]
    return fields


def main() -> None:
    """Replace the archive; print the number of steps."""
    with tarfile.open(STEPS) as archive:
        texts = {
            member.name: renamed(json.load(archive.extractfile(member)))  # type: ignore[arg-type]
            for member in archive
            if member.isfile()
        }
    with tarfile.open(STEPS, "w:xz") as archive:
        for name, fields in texts.items():
            text = json.dumps(fields, sort_keys=True, separators=(",", ":")) + "\n"
            if codec.dumps(load_recorded_step(text)) + "\n" != text:
                sys.exit(f"{name} is not what the codec writes")
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    print(f"{len(texts)} steps renamed")


if __name__ == "__main__":
    main()
