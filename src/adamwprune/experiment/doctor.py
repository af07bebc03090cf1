# SPDX-License-Identifier: MIT
"""What this installation has: versions, devices, the kernels in use, and data."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

import adamwprune
from adamwprune import kernels
from adamwprune.data import DATASETS, files
from adamwprune.kernels import native, triton_support
from adamwprune.training import device

#: Packages that are used where they are there.
_OPTIONAL = {
    "frameworks": ("transformers", "accelerate", "lightning"),
    "text": ("tokenizers", "tiktoken", "pyarrow"),
}


def examine(data_dir: Path) -> Iterator[tuple[str, str]]:
    """Topic and finding, line by line."""
    yield "adamwprune", f"{adamwprune.__version__} in {Path(adamwprune.__file__).parent}"
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors"
    for name in ("numpy", "kconfiglib", "typer", "rich", "matplotlib", "jinja2", "scikit-learn"):
        yield name, _version(name)
    for use, names in _OPTIONAL.items():
        yield use, ", ".join(f"{name} {_version(name)}" for name in names)
    chosen = device.find("auto")
    yield "device", f"{chosen}: {device.describe(chosen)}"
    yield "kernel", _kernel(chosen)
    for name, info in DATASETS.items():
        problems = {} if info.built_in else files.problems(info, data_dir)
        found = "built in" if info.built_in else f"complete in {data_dir}"
        yield f"data {name}", f"missing or corrupt in {data_dir}: {', '.join(problems)}" if problems else found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _kernel(device_type: str) -> str:
    """The backend of a device, and why it is not a faster one."""
    used = kernels.backend(device_type)
    if used == "native":
        return f"native, {native.best_instruction_set()}"
    if used == "triton":
        return f"triton {_version('triton')}"
    if device_type == "cuda" and triton_support.missing() is not None:
        return f"{used}: {triton_support.missing()}"
    if device_type not in ("cpu", "cuda"):
        return f"{used}: there is no kernel for {device_type} yet"
    if native.library() is None:
        return f"{used}: the native kernel is not built; install a C compiler, then adamwprune again"
    return f"{used}, as {kernels.BACKEND_VARIABLE} says"
