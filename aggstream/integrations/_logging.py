"""Log formatters that write one line for each log record."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys


class JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a log record."""
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class PlainFormatter(logging.Formatter):
    """Formats a log record as plain text. A line break in the record becomes a backslash and an n."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a log record."""
        return "\\n".join(super().format(record).splitlines())


_FORMATTERS = {"json": JsonFormatter, "plain": PlainFormatter}
FORMATS = tuple(_FORMATTERS)


def set_up(format_name: str | None) -> None:
    """Write all log records to stderr, one line for each record. Replace other handlers that write to a stream.

    Args:
        format_name: "json" or "plain"; None: "plain", but do nothing if the project has set up a handler itself.
    """
    root = logging.getLogger()
    ours = logging.getLogger("aggstream")
    if format_name is None and (root.handlers or ours.handlers):
        return
    for logger in (root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            for handler in [h for h in logger.handlers if type(h) is logging.StreamHandler]:
                logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATTERS[format_name or "plain"]())
    root.addHandler(handler)
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)
