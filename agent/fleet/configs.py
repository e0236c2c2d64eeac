"""The configs of several portfolios, and their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from agent.errors import ConfigError
from agent.files import folder_configs

MAX_SLUG_CHARS = 40


DEFAULT_CONFIG = Path("trimtab.toml")


def find_configs(paths: Sequence[Path] | None) -> list[Path]:
    """Return the config files in order, or DEFAULT_CONFIG; a folder stands for its *.toml files,
    sorted by name.
    Raises ConfigError for a folder without any, and for a file given twice.
    """
    configs: list[Path] = []
    for path in paths or [DEFAULT_CONFIG]:
        if not path.is_dir():
            configs.append(path)
        elif folder_files := folder_configs(path):
            configs += folder_files
        else:
            raise ConfigError(f"--config {path}: no *.toml file in this folder", "name the files")
    resolved_paths = [path.resolve() for path in configs]
    for config_index, path in enumerate(configs):
        if resolved_paths[config_index] in resolved_paths[:config_index]:
            raise ConfigError(f"--config {path}: given twice", "omit one of them")
    return configs


def portfolio_names(configs: Sequence[Path]) -> list[tuple[str, str]]:
    """Return name and slug of each portfolio. The name is the config's file name without extension,
    preceded by the folder if two are equal; bytes that are not UTF-8 are escaped. Slugs are unique,
    of a-z, 0-9 and hyphens.
    """
    file_stems = [path.stem for path in configs]
    names_and_slugs = []
    slugs: set[str] = set()
    for path in configs:
        name = path.stem
        if file_stems.count(name) > 1:
            name = f"{path.resolve().parent.name}/{name}"
        base_slug = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG_CHARS].strip("-")
        slug = base_slug or "portfolio"
        suffix_number = 1
        while slug in slugs:
            suffix_number += 1
            slug = f"{base_slug or 'portfolio'}-{suffix_number}"
        slugs.add(slug)
        names_and_slugs.append((name.encode(errors="backslashreplace").decode(), slug))
    return names_and_slugs
