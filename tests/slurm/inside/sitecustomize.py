"""Python runs this at start when its folder is on PYTHONPATH: trouble for jobs, and faster polling.

TROUBLE names a folder. A file `SCRIPT.mb` in it makes every process of that script hold so many
MB; a file `SCRIPT.seconds` makes the first one, and no other, sleep. Each script leaves a file
`SCRIPT.threads` there with the threads that it was told to use.
"""

import os
import pathlib
import re
import sys
import time

_held = []


def _trouble(script: str) -> None:
    if "TROUBLE" not in os.environ:
        return
    folder = pathlib.Path(os.environ["TROUBLE"])
    (folder / f"{script}.threads").write_text(os.environ["OMP_NUM_THREADS"])
    if (mb := folder / f"{script}.mb").exists():
        _held.append(b"x" * (int(mb.read_text()) << 20))
    try:
        (folder / f"{script}.seconds").rename(taken := folder / f"{script}.taken")
    except OSError:
        return
    time.sleep(float(taken.read_text()))


def _poll_every_two_seconds() -> None:
    """The plugin waits longer and longer between looks at its jobs."""
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    RemoteExecutor.next_seconds_between_status_checks = property(
        lambda self: 2, lambda self, value: None
    )


for _word in sys.orig_argv:
    if _match := re.search(r"\.snakemake/scripts/\w+\.(\w+)\.py$", _word):
        _trouble(_match[1])
if "--profile" in sys.orig_argv:
    _poll_every_two_seconds()
