"""Logs as JSON lines on standard error: one object a record, never a model's text or a secret."""

import json
import logging
import sys

from deltawheel.contracts.addresses import without_password

__all__ = ["log_as_json"]


class _JsonLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": without_password(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = without_password(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def log_as_json(service: str) -> None:
    """Send every logger's records to standard error as JSON; vendors only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(service))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("deltawheel").setLevel(logging.INFO)
