"""One target under atheris, in a process that ends with it; our modules are watched for new ways through them."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["agent"]):
    from tests.fuzz.answers import FOUND, SCENE, FuzzHunt
    from tests.fuzz.decoders import targets


def main() -> None:
    name = sys.argv[1]
    folder = Path(sys.argv[2])
    seconds = int(sys.argv[3])
    hunt = FuzzHunt(targets(pickle.loads((folder / SCENE).read_bytes()))[name], folder / FOUND / name)
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=4096", str(folder / name)], hunt.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
