"""What failed in a Snakemake run: a line when it happens, the reasons once more at the end.

The profile has Snakemake keep quiet about rules, for the sake of screens with thousands of file
names. With these goes the only word about a job that failed on another machine; here it is again.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_MOST_LINES = 12
_LONG_WINDED = re.compile("sbatch call:|Detailed failure reason|For further error details")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* ")


def _file_time() -> float:
    """Now, as the file system stamps it: a clock apart, coarser or on another machine."""
    try:
        with tempfile.TemporaryFile(dir=".") as f:
            return os.fstat(f.fileno()).st_mtime
    except OSError:  # a dry run in a folder of somebody else's
        return time.time()


class Failures(logging.Handler):
    """A handler for Snakemake's logger that keeps the last failure of each job.

    Of the events that Snakemake documents for logger plugins it reads job_error, group_error and
    job_finished: a job that succeeds at a later attempt has not failed. Made in the folder that
    the logs are written below: they are of this run if younger than a file made there then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun = _file_time()
        self._failed: dict[Any, tuple[str, str, list[str]]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        found, event = vars(record), getattr(record, "event", None)
        if event == "job_error" and not found["indent"]:  # those of a group are indented
            self._add(found, found["log"])
        elif event == "group_error":
            for job in found["job_error_info"]:
                self._add(job, [*job["log"], *found["aux_logs"]])
        elif event == "job_finished":
            self._failed.pop(found["job_id"], None)

    def _add(self, job: Mapping[str, Any], logs: Iterable[str]) -> None:
        said = " ".join(_LONG_WINDED.split(job["rule_msg"] or "")[0].split())
        self._failed[job["jobid"]] = (job["rule_name"], said, list(map(str, logs)))
        print(f"failed: {job['rule_name']}" + (f": {said}" if said else ""), file=sys.stderr)

    def summary(self) -> str:
        """Every job that failed for good, what was said of it, and the last words of its logs.

        "" where none did.
        """
        if not self._failed:
            return ""
        lines = [f"{len(self._failed)} jobs failed:"]
        for rule, said, logs in self._failed.values():
            lines.append(f"  {rule}" + (f": {said}" if said else ""))
            for log in logs:
                words = self._last_words(Path(log))
                lines += [f"    {log}:", *(f"      {w}" for w in words)] if words else []
        return "\n".join(lines)

    def _last_words(self, log: Path) -> list[str]:
        """The last message in a log of this run; the last line where there are no time stamps."""
        try:
            if log.stat().st_mtime < self._begun:
                return []
            lines = [w for w in log.read_text(errors="replace").splitlines() if w.strip()]
        except OSError:
            return []
        stamped = [i for i, w in enumerate(lines) if _STAMP.match(w)]
        last = lines[stamped[-1] :] if stamped else lines
        if not stamped or any(w.startswith("Traceback") for w in last):
            last = last[-1:]
        return [_STAMP.sub("", w) for w in last[:_MOST_LINES]]


def says_only_that_a_script_failed(record: logging.LogRecord) -> bool:
    """True for Snakemake's words about a script that said itself what went wrong."""
    text = record.getMessage()
    return "CalledProcessError" in text and "returned non-zero exit status 1." in text
