"""An error in every way that it is shown."""

from __future__ import annotations

import io
import logging
import traceback

from rich.console import Console
from rich.traceback import Traceback


def error_texts(error: BaseException) -> str:
    """The error as plain text, as logged, and as rich prints it with every local variable of every frame."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("canary")
    logger.addHandler(handler)
    logger.error("failed: %r %s", error, error, exc_info=error)
    logger.removeHandler(handler)
    Console(file=stream, width=300).print(
        Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True, locals_max_string=None)
    )
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.TracebackException.from_exception(cause, capture_locals=True)
        stream.write("".join(frames.format()) + repr(cause) + repr(cause.args) + repr(vars(cause)))
        cause = cause.__cause__ or cause.__context__
    return stream.getvalue()
