"""Fuzzes the decoders of what endpoints, files and calldata say, from seeds of a real chain: with atheris where it is installed
(locks/requirements-fuzz.lock), else with plain mutations. Whatever breaks a decoder is kept under tests/fuzz/crashes: `make fuzz`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import pickle
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from agent.localchain import open_anvil
from tests.fuzz.decoders import CRASHES, Target, mutations, survives, targets

SCENE = "scene.pickle"
FOUND = "found"


def place_of(error: BaseException) -> str:
    """Where an error came up: one name for all inputs that break the same line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/agent/" in frame.filename] or ["nowhere of ours"]
    return f"{type(error).__name__} at {frames[-1]}"


class FuzzHunt:
    """A target, and one input for each place where it broke."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target, self._folder, self._places = target, folder, set[str]()

    def one(self, data: bytes) -> None:
        """Tries one input; what breaks the target is written down, and the hunt goes on."""
        try:
            survives(self._target, data)
        except Exception as error:
            place = place_of(error)
            if place not in self._places:
                self._places.add(place)
                print(place, file=sys.stderr)
                (self._folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def plainly(target: Target, folder: Path, name: str, seconds: float) -> int:
    """Seeded mutations in this process; how many."""
    hunt = FuzzHunt(target, folder / FOUND / name)
    tried = 0
    end = time.monotonic() + seconds
    streams = [mutations(path.read_bytes(), random.Random(number)) for number, path in enumerate(sorted((folder / name).iterdir()))]
    while time.monotonic() < end:
        for stream in streams:
            hunt.one(next(stream))
            tried += 1
    return tried


def hunted(name: str, folder: Path, seconds: int, target: Target, atheris: bool) -> int:
    """Inputs tried on one target."""
    if not atheris:
        return plainly(target, folder, name, seconds)
    command = [sys.executable, "-m", "tests.fuzz.with_atheris", name, str(folder), str(seconds)]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    done = re.search(r"Done (\d+) runs", ran.stderr)
    if done is None:
        raise SystemExit(f"{name}: atheris did not end as it should: {ran.stderr[-2_000:]}")
    return int(done[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    options = parser.parse_args()
    from tests.fuzz.seeds import record

    atheris = importlib.util.find_spec("atheris") is not None
    figures: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with open_anvil() as chain:
            scene, seeds = record(chain, folder / "agent")
        (folder / SCENE).write_bytes(pickle.dumps(scene))
        known = targets(scene)
        for name, target in known.items():
            (folder / FOUND / name).mkdir(parents=True)
            (folder / name).mkdir()
            for number, data in enumerate(seeds[name]):
                (folder / name / f"seed{number}").write_bytes(data)
            tried = hunted(name, folder, max(1, options.seconds // len(known)), target, atheris)
            broken = sorted((folder / FOUND / name).iterdir())
            for path in broken:
                (CRASHES / name).mkdir(parents=True, exist_ok=True)
                (CRASHES / name / path.name).write_bytes(path.read_bytes())
            figures[name] = {"inputs": tried, "violations": len(broken)}
    violations = sum(figure["violations"] for figure in figures.values())
    inputs = sum(figure["inputs"] for figure in figures.values())
    document = {"engine": "atheris" if atheris else "mutations", "inputs": inputs, "violations": violations, "by_target": figures}
    print(json.dumps(document, indent=2))
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
