"""Structured logging as JSON or text. Secrets are redacted from every line, including lines of
libraries (T18).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, TextIO
from urllib.parse import quote

from agent.chain.providers.secrets import secret_parts

LogStyle = Literal["text", "json"]
ROOT_LOGGER = "trimtab"
HIDDEN_TEXT = "[hidden]"
MIN_SECRET_LENGTH = 6
"""Minimum length of a redacted part, because shorter parts are ordinary words."""
_KEY = re.compile("(?:0[xX])?([0-9a-fA-F]{64})")
_FIELDS_ATTRIBUTE = "fields"


class Redactor:
    """Removes known secrets from text: whole URLs, and their paths, queries and passwords alone."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._secrets: list[str] = []
        self._known_secrets: set[str] = set()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these too, longest first, so that no part of a longer secret stays."""
        with self._lock:
            new_secrets = set(secrets) - self._known_secrets
            new_forms = {
                form
                for secret in new_secrets
                for form in _forms(secret)
                if len(form) >= MIN_SECRET_LENGTH
            }
            new_forms |= {json.dumps(form)[1:-1] for form in new_forms}
            self._known_secrets |= new_secrets
            self._secrets = sorted(new_forms.union(self._secrets), key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} secrets)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a redactor has secrets and cannot be pickled or copied")

    def redact(self, text: str) -> str:
        """Return the text with secrets replaced by HIDDEN_TEXT."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN_TEXT)
        return text


def _forms(secret: str) -> list[str]:
    """Return the texts by which a secret may be shown: itself and as a part of an address, the
    parts of an address, and the digits of a key.
    """
    forms = [secret, quote(secret, safe=""), *secret_parts(secret)]
    if key_match := _KEY.fullmatch(secret):
        forms += [key_match[1], key_match[1].lower(), key_match[1].upper()]
    return forms


class LineFormatter(logging.Formatter):
    """Formats a record as one ASCII line, so that no logged text controls a terminal or splits a
    line (T17).
    """

    def __init__(self, style: LogStyle, redactor: Redactor) -> None:
        super().__init__()
        self._is_json = style == "json"
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields: dict[str, Any] = {
            "time": (
                datetime.fromtimestamp(record.created, UTC)
                .isoformat(timespec="milliseconds")
                .replace("+00:00", "Z")
            ),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FIELDS_ATTRIBUTE, {}),
        }
        if record.name != ROOT_LOGGER:
            fields["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        if self._is_json:
            return self._redactor.redact(json.dumps(fields, default=str))
        time_level_event = (fields.pop("time"), fields.pop("level").upper(), fields.pop("event"))
        other_fields = fields
        pairs_text = " ".join(
            f"{field_name}={json.dumps(field_value, default=str)}"
            for field_name, field_value in other_fields.items()
        )
        return self._redactor.redact(
            f"{time_level_event[0]} {time_level_event[1]:<7} {json.dumps(time_level_event[2])[1:-1]} {pairs_text}".rstrip()
        )


class Log:
    """Writes events with fields; the only logger of a run. Each event has `run_fields` too, such as
    the portfolio of a run among several.
    """

    def __init__(self, name: str = ROOT_LOGGER, **run_fields: object) -> None:
        self._logger = logging.getLogger(name)
        self._run_fields = run_fields

    def info(self, event: str, **fields: object) -> None:
        """Log a normal event."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log an event for the owner's attention; the run continues."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log an event that ends the run, or needs an operator."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        self._logger.log(level, event, extra={_FIELDS_ATTRIBUTE: {**self._run_fields, **fields}})


def configure(
    style: LogStyle | None, redactor: Redactor | None = None, stream: TextIO | None = None
) -> Log:
    """Send all log lines of this process to `stream` (default stderr) in one format, without what
    `redactor` hides, now or later; the style None logs nothing. Library lines at WARNING and above
    use the same formatter. A further call replaces the configuration.
    """
    # on a write error, logging would print the record unredacted
    logging.raiseExceptions = False
    root_logger = logging.getLogger()
    for handler in [
        root_handler
        for root_handler in root_logger.handlers
        if isinstance(root_handler.formatter, LineFormatter)
    ]:
        root_logger.removeHandler(handler)
    trimtab_logger = logging.getLogger(ROOT_LOGGER)
    # without any handler logging would print the lines of libraries unredacted
    handler = (
        logging.NullHandler() if style is None else logging.StreamHandler(stream or sys.stderr)
    )
    handler.setFormatter(LineFormatter(style or "text", redactor or Redactor()))
    root_logger.addHandler(handler)
    trimtab_logger.setLevel(logging.CRITICAL + 1 if style is None else logging.INFO)
    return Log()
