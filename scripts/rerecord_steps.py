"""Write the recorded steps of tests/golden in the present form. Each is read by the codec, which
still knows the former one, written, and read again: both must be equal. Used once.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent import codec
from agent.store.files.recorder import load_recorded_step

STEPS = Path(__file__).resolve().parent.parent / "tests" / "golden" / "steps.tar.xz"


def main() -> None:
    """Replace the archive; print the number of steps, and of those whose text has changed."""
    with tarfile.open(STEPS) as archive:
        before = {
            member.name: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
            if member.isfile()
        }
    after = {}
    for name, text in before.items():
        recorded = load_recorded_step(text)
        after[name] = codec.dumps(recorded) + "\n"
        if load_recorded_step(after[name]) != recorded:
            sys.exit(f"{name} has another meaning")
    with tarfile.open(STEPS, "w:xz") as archive:
        for name, text in sorted(after.items()):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    changed = sum(before[name] != text for name, text in after.items())
    print(f"{len(after)} steps, equal in meaning; {changed} written anew")


if __name__ == "__main__":
    main()
