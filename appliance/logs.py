"""Structured logs on stderr, one line per event; what looks like a secret never gets there.

Lines are rendered and written by a thread of their own: a traceback reads source files, and a full pipe blocks, and
neither may hold up the event loop.
"""

from __future__ import annotations

import atexit
import logging
import logging.handlers
import queue
import re
import sys
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

SECRET_KEYS = re.compile(r"secret|password|passwd|token|api_?key|authorization|signature|credential", re.IGNORECASE)
SECRET_IN_TEXT = re.compile(r"(?i)\b(api_?key|secret_?key|signature|password|token)=[^&\s\"']+")
PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]+:)[^@\s/]+@")
HIDDEN = "***"


class _Stderr(logging.Handler):
    """Writes to whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            # Nobody reads it any more; there is no other place to say so.
            return


class _Handover(logging.handlers.QueueHandler):
    """Hands records over untouched; the other thread renders them."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


class _Writer:
    """The one thread that writes; a new configuration replaces it."""

    listener: logging.handlers.QueueListener | None = None

    @classmethod
    def replace(cls, handler: logging.Handler) -> logging.Handler:
        flush_logs()
        waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        cls.listener = logging.handlers.QueueListener(waiting, handler)
        cls.listener.start()
        return _Handover(waiting)


def flush_logs() -> None:
    """Writes what is waiting and ends the thread; a later configuration begins anew."""
    if _Writer.listener is not None:
        _Writer.listener.stop()
        _Writer.listener = None


atexit.register(flush_logs)


def configure_logs(level: str, format: Literal["json", "console"]) -> None:  # noqa: A002  the setting's own name
    """Routes structlog and the standard library's loggers to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            keep_exception,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_ending(as_json=format == "json"))
    )
    root = logging.getLogger()
    root.handlers = [_Writer.replace(handler)]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "aiohttp.access", "sqlalchemy", "alembic", "cs"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _ending(*, as_json: bool) -> list[structlog.typing.Processor]:
    drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if as_json:
        return [
            drop_meta,
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    plain = structlog.dev.plain_traceback
    return [drop_meta, redact, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def keep_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Takes the present exception along: in the thread that renders there is none."""
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hides values under telling names and secrets inside texts, however deep."""
    return {key: _redacted(key, value) for key, value in event.items()}


def _redacted(key: str, value: Any) -> Any:
    if SECRET_KEYS.search(key) and value is not None:
        return HIDDEN
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {name: _redacted(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", inner) for inner in value]
    return value


def without_secrets(text: str) -> str:
    """The text without signature, key and password values of queries and addresses."""
    return PASSWORD_IN_URL.sub(rf"\1{HIDDEN}@", SECRET_IN_TEXT.sub(rf"\1={HIDDEN}", text))
