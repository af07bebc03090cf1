# SPDX-License-Identifier: MIT
"""Compile Triton kernels ahead of time, without a GPU: `python compile_triton.py BACKEND ARCHITECTURE [KERNEL...]`.

Prints JSON: for each kernel how much was spilled out of registers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from adamwprune.kernels import triton_passes, triton_select, triton_update

WARP = {"cuda": 32, "hip": 64}
STEP = {"owner": "*i32", "table": "*i64", "numbers": "*fp32", "scale": "*fp32"}
SELECT = {"table": "*i64", "numbers": "*fp32"}
SCORE = {"SCORE": 1, "LAYOUT": 2, "WEIGHT": 0, "FIRST": 0, "SECOND": 2}
PLAIN = {
    "LAYOUT": 2, "WEIGHT": 0, "GRAD": 0, "FIRST": 0, "SECOND": 0, "CORRECTION": False, "AMSGRAD": False, "THETA": False,
    "SCALE": False, "VECTOR": True, "ALIGNED": True,
}  # fmt: skip
CODES = {**PLAIN, "WEIGHT": 1, "GRAD": 1, "FIRST": 2, "SECOND": 2, "CORRECTION": True, "SCALE": True, "THETA": True}

#: Name, kernel, types of its arguments, constants.
KERNELS = [
    ("step", triton_update.step_kernel, STEP, PLAIN),
    ("masked loads", triton_update.step_kernel, STEP, {**PLAIN, "VECTOR": False, "AMSGRAD": True}),
    ("codes", triton_update.step_kernel, STEP, CODES),
    (
        "histogram",
        triton_select.histogram_kernel,
        {"owner": "*i32", **SELECT, "selection": "*i32", "counts": "*i32", "blocks_each": "i32"},
        {"SHIFT": 21, "BINS": 2048, "FINITE": True, **SCORE},
    ),
    ("pick", triton_select.pick_kernel, {"selection": "*i32", "counts": "*i32"}, {"BINS": 2048}),
    (
        "mark",
        triton_select.mark_kernel,
        {**SELECT, "equal_before": "*i64", "marks": "*u8", "threshold": "fp32", "spare": "i32"},
        SCORE,
    ),
    (
        "compact",
        triton_passes.compact_kernel,
        {
            **dict.fromkeys(("entries", "target"), "*i8"),
            "old_bits": "*u8", "old_starts": "*i64", "bits": "*u8", "starts": "*i64", "numel": "i64",
        },
        {"ALL": False},
    ),
]  # fmt: skip


def spilled(compiled: CompiledKernel) -> int:
    """Bytes (NVIDIA) or vector registers (AMD) of a kernel's working set that did not fit its registers."""
    if "cubin" not in compiled.asm:
        return sum(map(int, re.findall(r"vgpr_spill_count:\s*(\d+)", compiled.asm["amdgcn"])))
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    assert "REG:" in usage.stdout
    return sum(map(int, re.findall(r"(?:STACK|LOCAL):(\d+)", usage.stdout)))


def main() -> None:
    backend, arch, *names = sys.argv[1:]
    target = GPUTarget(backend, int(arch) if arch.isdecimal() else arch, WARP[backend])
    options = {"num_warps": 8 if backend == "cuda" else 4, "enable_fp_fusion": False}
    result = {}
    for name, kernel, types, constants in KERNELS:
        if names and name not in names:
            continue
        signature = {**types, **dict.fromkeys(constants, "constexpr")}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        result[name] = spilled(triton.compile(source, target=target, options=options))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
