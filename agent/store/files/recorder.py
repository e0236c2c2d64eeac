"""Files of steps and proposals, each written atomically. Beyond the limits the oldest recorded
steps are deleted.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent import codec, files
from agent.errors import ConfigError, ErrorCode, PassingFault, TrimtabError
from agent.foreign_text import failure_text, read_json
from agent.model import Plan, StepInput, StepRequest
from agent.store.database.rows import StepRecord

FORMAT = "trimtab step"
"""Value of `format` in every recorded step."""
_FILE_NAME = re.compile(r"step-([0-9]{8,15})-[0-9a-f]{12}\.json")
_DRAFT_NAME = re.compile(r"\.step-[0-9]{8,15}-[0-9a-f]{12}\.json\.[0-9a-f]{12}\.draft")
_STALE_DRAFT_S = 3_600
"""Age above which a draft counts as left over from a process that died while writing it."""


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A recorded step: its input and its result.

    `version` is trimtab's version, `config_hash` the SHA-256 of the config file, `store_kind` the
    kind of store (live or paper), `step_id` the id in the store, `now_s` the start. `decision`,
    `reason` and `outcome` are as in the store. `request` is the request (None in files of earlier
    versions).
    """

    format: str
    version: str
    config_hash: str
    store_kind: str
    step_id: str
    now_s: int
    decision: str | None
    reason: str | None
    outcome: str | None
    input: StepInput
    plan: Plan | None = None
    request: StepRequest | None = None


def load_recorded_step(step_json: str) -> RecordedStep:
    """Parse a recorded step. Raises ConfigError with the reason if it is not one."""
    recorded_step = codec.loads(RecordedStep, step_json)
    if recorded_step.format != FORMAT:
        raise ConfigError("not a recorded step", "use a folder written by trimtab run --record")
    return recorded_step


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """Maximum number of files, and of their bytes in total."""

    max_files: int
    max_bytes: int


def prepare_folder(folder: Path) -> None:
    """Create the folder if it does not exist. Raises ConfigError if it cannot be written."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        trial_file = folder / f".{secrets.token_hex(6)}.trial"
        os.close(os.open(trial_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        trial_file.unlink()
    except OSError as error:
        raise ConfigError(
            f"record.dir {folder}: {error.strerror}",
            "use a writable folder in an existing one",
        ) from None


class StepRecorder:
    """Writes each step of a store to a file. A failed write is reported and does not stop the
    agent.
    """

    def __init__(
        self, folder: Path, config_hash: str, store_kind: str, limits: RecorderLimits
    ) -> None:
        """Create the folder if it does not exist. Raises ConfigError if it cannot be written."""
        self.folder = folder
        self.config_hash = config_hash
        self._store_kind = store_kind
        self._limits = limits
        self.report_failure: Callable[[str], None] = lambda _: None
        prepare_folder(folder)

    def write_step(self, record: StepRecord) -> None:
        """Write a step to a file. A repeated call writes another file."""
        try:
            self._write_file(record)
        except (OSError, TrimtabError) as error:
            self.report_failure(
                f"a step could not be recorded in {self.folder}: {failure_text(error)}"
            )

    def _write_file(self, record: StepRecord) -> None:
        step_files = self._tidied_step_files()
        step_number = step_files[-1][0] + 1 if step_files else 1
        file_name = f"step-{step_number:08d}-{record.summary.id}.json"
        step_bytes = (codec.dumps(self._recorded_step(record)) + "\n").encode()
        files.replace_file(self.folder / file_name, step_bytes)
        self._prune([*step_files, (step_number, file_name, len(step_bytes))])

    def _recorded_step(self, record: StepRecord) -> RecordedStep:
        summary = record.summary
        return RecordedStep(
            format=FORMAT,
            version=version("trimtab"),
            config_hash=self.config_hash,
            store_kind=self._store_kind,
            step_id=summary.id,
            now_s=summary.now_s,
            decision=summary.decision,
            reason=summary.reason,
            outcome=summary.outcome,
            input=codec.loads(StepInput, record.input_json),
            plan=codec.loads_optional(Plan, record.plan_json),
            request=None
            if (request_json := record.request_json) is None
            else codec.loads(StepRequest, request_json),
        )

    def _tidied_step_files(self) -> list[tuple[int, str, int]]:
        """Return (number, name, bytes) of the recorder's files, oldest first. Remove old drafts;
        other files in the folder are not touched.
        """
        step_files = []
        with os.scandir(self.folder) as folder_entries:
            for folder_entry in folder_entries:
                if not folder_entry.is_file(follow_symlinks=False):
                    continue
                if (name_match := _FILE_NAME.fullmatch(folder_entry.name)) is not None:
                    size_bytes = folder_entry.stat(follow_symlinks=False).st_size
                    step_files.append((int(name_match[1]), folder_entry.name, size_bytes))
                elif _DRAFT_NAME.fullmatch(folder_entry.name):
                    age_s = time.time() - folder_entry.stat(follow_symlinks=False).st_mtime
                    if age_s > _STALE_DRAFT_S:
                        with suppress(OSError):
                            Path(folder_entry.path).unlink()
        return sorted(step_files)

    def _prune(self, step_files: Sequence[tuple[int, str, int]]) -> None:
        """Delete the oldest files until the rest is within both limits; the newest always stays."""
        total_bytes = sum(size_bytes for _, _, size_bytes in step_files)
        for index, (_, file_name, size_bytes) in enumerate(step_files[:-1]):
            if (
                len(step_files) - index <= self._limits.max_files
                and total_bytes <= self._limits.max_bytes
            ):
                return
            (self.folder / file_name).unlink(missing_ok=True)
            total_bytes -= size_bytes


@dataclass(frozen=True, slots=True)
class FileOutbox:
    """Proposals for external signers, each in a file that only the owner can read."""

    folder: Path

    def write_proposal(self, name: str, text: str) -> str:
        """Write a proposal and return its path; a complete existing file is kept. Raises
        PassingFault if it cannot be written.
        """
        path = self._path(name)
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if not path.exists() or path.read_bytes() != text.encode():
                files.replace_file(path, text.encode())
        except OSError as error:
            raise PassingFault(
                f"the proposal {path} cannot be written ({error.strerror})",
                "free space there, then run it again",
                code=ErrorCode.FILE,
            ) from None
        return str(path)

    def read_proposal(self, name: str) -> dict[str, Any]:
        """Return the fields of a proposal's file; empty if it is missing or no JSON."""
        try:
            return dict(read_json(self._path(name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def remove_proposal(self, name: str) -> None:
        """Remove a proposal if it exists."""
        with suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
