# SPDX-License-Identifier: MIT
"""Weights that a run begins with: those of another run, or a state dict from elsewhere."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adamwprune.models.gpt2 import GPT2
from adamwprune.models.hugging_face import PREFIX, load_hugging_face
from adamwprune.training.errors import ConfigError


def checksum(path: str) -> str:
    """sha256 of a file of weights; ConfigError where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"init={path!r} cannot be read: {error.strerror}") from error


def load(path: str, model: nn.Module) -> None:
    """Give a network the weights of a file: a checkpoint of ours, a state dict (torch or safetensors), or a GPT-2's of
    Hugging Face.

    Raises:
        ConfigError: the file holds no weights, or not this network's; nothing was changed.
    """
    state = _state(path)
    try:
        if isinstance(model, GPT2) and any(name.startswith(PREFIX) for name in state):
            load_hugging_face(model, state)
            return
        ours = model.state_dict()
        for name in sorted(ours.keys() ^ state.keys()):
            raise ValueError(f"{name} is only in the {'network' if name in ours else 'file'}")
        for name, value in state.items():
            if value.shape != ours[name].shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, the network's is {tuple(ours[name].shape)}")
    except ValueError as error:
        raise ConfigError(f"init={path!r} does not fit the network: {error}") from error
    model.load_state_dict(state)


def _state(path: str) -> dict[str, Tensor]:
    checksum(path)  # says what is wrong with a path better than the readers below
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise ConfigError(f"init={path!r}: pip install safetensors to read it") from error
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(f"init={path!r} holds no weights that can be read safely ({type(error).__name__})") from error
    if isinstance(content, dict):
        content = content.get("run", content)
        content = content.get("model", content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"init={path!r} is neither a checkpoint of a run nor a state dict")
    return content
