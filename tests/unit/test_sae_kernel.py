"""Choosing OpenBLAS's AVX-512 kernels before NumPy is imported."""

import os
import subprocess
import sys

import pytest

AVX512 = "avx512f avx512cd avx512bw avx512dq avx512vl"

CHOOSE = """
import os, sys
{before}
from actprobe.sae.kernel import prefer_avx512
print(prefer_avx512({cpuinfo!r}), os.environ.get("OPENBLAS_CORETYPE"))
"""


@pytest.mark.parametrize(
    ("vendor", "flags", "before", "expected"),
    [
        ("AuthenticAMD", AVX512, "", "True SkylakeX"),
        ("AuthenticAMD", "avx2", "", "False None"),
        ("GenuineIntel", AVX512, "", "False None"),  # OpenBLAS knows these
        ("AuthenticAMD", AVX512, "os.environ['OPENBLAS_CORETYPE'] = 'Zen'", "False Zen"),
        ("AuthenticAMD", AVX512, "import numpy", "False None"),  # too late
    ],
)
def test_only_where_it_helps_and_nobody_chose(vendor, flags, before, expected):
    cpuinfo = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu sse {flags}\n"
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    code = CHOOSE.format(before=before, cpuinfo=cpuinfo)
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == expected
