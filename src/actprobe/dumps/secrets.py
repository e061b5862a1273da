"""Credentials stay out of logs, tracebacks and messages.

A signed URL is a credential, and libraries write theirs where they like: urllib3 every request at
level DEBUG and a reply's bad headers at WARNING, requests into the text of its errors. One filter
sits where all log records are made, so that no handler and no library goes around it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from typing import Any

_HIDDEN = "(redacted)"
_KEYS = r"sig(?:nature)?|token|key(?:-pair-id)?|credential|security|secret|policy|expires?|auth\w*"
_RULES = [
    # The query of a signed URL, whole: /file?X-Amz-Signature=… (with or without the host before it).
    (re.compile(rf"\?(?=[^\s\"'<>]*(?:{_KEYS})[\w-]*=)[^\s\"'<>]*", re.IGNORECASE), f"?{_HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)"), _HIDDEN),  # user:password@host
    (re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {_HIDDEN}"),
    (
        re.compile(
            r"((?:api[-_ ]?key|password|passwd|secret|access[-_ ]?token)[\"']?\s*[:=]\s*[\"']?)"
            r"[^\s\"',;&)]{4,}",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
    (re.compile(r"\b(?:hf_|wandb_v\d_|local-)[A-Za-z0-9_]{20,}"), _HIDDEN),
]
_OF_THE_ENVIRONMENT = (
    "WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)  # fmt: skip


def redact(text: str) -> str:
    """The text without signatures, keys and passwords; host and path of a URL stay."""
    for name in _OF_THE_ENVIRONMENT:
        if len(value := os.environ.get(name, "")) >= 8:
            text = text.replace(value, _HIDDEN)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def keep_out_of_logs() -> None:
    """From now on, redact every log record of the process, whichever library makes it and whichever
    handler gets it, and the tracebacks of uncaught errors."""
    if getattr(logging.getLogRecordFactory(), "redacts", False):
        return
    logging.setLogRecordFactory(_redacting(logging.getLogRecordFactory()))
    sys.excepthook = _said_redacted
    threading.excepthook = lambda args: _said_redacted(
        args.exc_type, args.exc_value, args.exc_traceback
    )


def _redacting(make: Any) -> Any:
    """A log record factory around another one. The message is put together here: its arguments hold
    what is to be hidden, and some loggers' records are formatted by nobody."""

    def redacting(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = make(*args, **kwargs)
        try:
            said = record.getMessage()
        except Exception:  # a library's faulty format string: the handler will say so
            said = None
        if said is not None and (clean := redact(said)) != said:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            if (clean := redact(text)) != text:
                record.exc_text, record.exc_info = clean, None
        return record

    redacting.redacts = True  # type: ignore[attr-defined]
    return redacting


def _said_redacted(kind: Any, error: Any, trace: Any) -> None:
    """Print an uncaught error as Python does, redacted."""
    if kind is not SystemExit:
        print(
            redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr
        )
