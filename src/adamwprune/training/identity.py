# SPDX-License-Identifier: MIT
"""What makes two runs the same run: a hash of everything that decides their numbers."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import adamwprune
from adamwprune import data, kernels, models, optim, prune
from adamwprune.files import read_json
from adamwprune.training import device, ranks, weights
from adamwprune.training.config import RunConfig
from adamwprune.training.errors import ConfigError
from adamwprune.training.recipes import PRUNING
from adamwprune.training.resolve import METHOD_SCORES

#: Raised when the engine trains, evaluates or draws differently, so that runs before and after are told apart.
VERSION = 1


#: What is hashed only where it is otherwise: runs that do not use it are those of the time before it was there.
USUAL = {"ranks": 1, "micro_batch": None, "parallel": "ddp", "train_examples": None, "resume_from": None}

#: What says how the same batches are computed: a run may go on in another way, as a run of its own.
WAYS = ("ranks", "parallel", "accumulate", "micro_batch", "threads")


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, str]:
    """In what two identities' configs differ, in words."""
    return {
        name: f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here"
        for name in dict.fromkeys([*ours, *theirs])
        if theirs.get(name) != ours.get(name)
    }


def identity(resolved: RunConfig, data_checksum: str) -> dict[str, Any]:
    """What is hashed: scientific fields, data, device type, kernels, and the version of each component.

    The thread count is among the fields; paths and other fields that decide no number are not.
    """
    config = resolved.science()
    config["ranks"] = ranks.size()  # sums are rounded otherwise, dropout sees other parts
    config = {name: value for name, value in config.items() if name not in USUAL or value != USUAL[name]}
    if resolved.init:
        config["init"] = weights.checksum(resolved.init)
    if resolved.resume_from:
        config["resume_from"] = origin(resolved.resume_from)
    return {
        "config": config,
        "data": data_checksum,
        "device": resolved.device,
        "backend": kernels.backend(resolved.device),
        "versions": {
            "data": data.VERSION,
            "kernels": kernels.VERSION,
            "models": models.VERSION,
            "optim": optim.VERSION,
            "prune": prune.VERSION,
            "training": VERSION,
        },
    }


def origin(path: str) -> str:
    """The id of the run in a directory; ConfigError where there is none."""
    try:
        return str(read_json(Path(path) / "config.json")["run_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"resume_from={path!r} is not the directory of a run: {error}") from error


def run_id(identity: dict[str, Any]) -> str:
    """Twelve hex digits that two runs share only if nothing that decides their numbers differs."""
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_name(resolved: RunConfig) -> str:
    """A name for people, e.g. ``lenet5-digits-adamwprune_adamwspam-state-70-s0``; what is not default is in it."""
    model = resolved.model if resolved.width == 1 else f"{resolved.model}_w{resolved.width:g}"
    model += "_tuned" if resolved.init else ""
    optimizer = resolved.optimizer if resolved.base == "adamw" else f"{resolved.optimizer}_{resolved.base}"
    method = resolved.pruning_method
    if method != "none":
        choices = (
            (resolved.score, METHOD_SCORES[method][0]),
            (resolved.distribution, PRUNING.distribution),
            ((resolved.pattern or "").replace(":", "of"), PRUNING.pattern),
        )
        method = "_".join([method, *(str(value) for value, default in choices if value != default)])
        method += f"-{100 * (resolved.target_sparsity or 0):.6g}"
    data_set = resolved.data if resolved.train_examples is None else f"{resolved.data}_{resolved.train_examples}"
    return f"{model}-{data_set}-{optimizer}-{method}-s{resolved.seed}"


def environment(resolved: RunConfig) -> dict[str, Any]:
    """What is stored beside a run's numbers without being part of its identity."""
    return {
        "adamwprune": adamwprune.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.describe(resolved.device),
        "threads": resolved.threads,
    }


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that this package is run from; None outside of one."""
    file = Path(adamwprune.__file__)
    # It fails where the file is not in the commit: an installed package in somebody else's checkout.
    command = ["git", "-C", str(file.parent), "rev-parse", "HEAD", f"HEAD:./{file.name}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split()[0] if answer.returncode == 0 else None
