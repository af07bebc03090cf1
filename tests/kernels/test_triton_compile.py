# SPDX-License-Identifier: MIT
"""The kernels compile for GPUs that are not here, and keep everything in registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("triton")

COMPILE = Path(__file__).with_name("compile_triton.py")
TARGETS = {"cuda": "nvidia", "hip": "amd"}


@pytest.mark.parametrize(
    ("backend", "architecture", "names"),
    [("cuda", "90", []), ("cuda", "80", ["step"]), ("hip", "gfx942", ["step", "codes"])],
)
def test_kernels_compile_ahead_of_time_without_spills(backend, architecture, names, tmp_path):
    if TARGETS[backend] not in {point.name for point in metadata.entry_points(group="triton.backends")}:
        pytest.skip(f"this Triton has no compiler for {backend}")
    # The interpreter, which the other tests here may use, compiles nothing.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, COMPILE, backend, architecture, *names],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    spills = json.loads(done.stdout)
    assert set(names) <= spills.keys()
    assert not any(spills.values()), spills
