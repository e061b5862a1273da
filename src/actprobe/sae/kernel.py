"""The CPU's fast float32 product.

OpenBLAS, as NumPy's wheels carry it (0.3.31), takes AMD processors with AVX-512 (Zen 4 and 5) for
Haswell, at half their speed; naming the kernel doubles it, with the same accuracy. The variable is
read when the library is loaded, so this must run before NumPy is imported.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

log = logging.getLogger(__name__)

VARIABLE = "OPENBLAS_CORETYPE"
_SKYLAKE = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def prefer_avx512(cpuinfo: str | None = None) -> bool:
    """Choose OpenBLAS's AVX-512 kernels where the processor has AVX-512; True when chosen.

    Leaves a choice made by the user alone, and processors that OpenBLAS knows itself (Intel's).
    """
    if VARIABLE in os.environ or "numpy" in sys.modules:
        return False
    try:
        text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    except OSError:  # not Linux
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    if "AuthenticAMD" not in text or not _SKYLAKE.issubset(flags):
        return False
    os.environ[VARIABLE] = "SkylakeX"
    log.info("%s=SkylakeX: float32 products use AVX-512", VARIABLE)
    return True
