# SPDX-License-Identifier: MIT
"""The native kernel, as an optional extension: without a C compiler the install succeeds all the same."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "adamwprune.kernels._adamw",
            sources=[
                f"src/adamwprune/kernels/csrc/{name}.c" for name in ("dispatch", "cut", "scalar", "avx2", "avx512")
            ],
            depends=sorted(glob("src/adamwprune/kernels/csrc/*.h")),
            # Contraction would add multiply-adds that the other instruction sets do not have, and change bits.
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"],
            optional=True,
        )
    ]
)
