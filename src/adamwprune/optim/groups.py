# SPDX-License-Identifier: MIT
"""Parameter groups of a model: who decays, and who may be pruned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_HEAD_NAMES = frozenset({"head", "heads", "lm_head", "classifier", "score", "fc", "output_projection", "out_proj_head"})


def parameters(groups: Iterable[dict[str, Any]]) -> Iterator[Any]:
    """Every parameter of an optimizer's groups, in order; of saved groups, the number that stands for each."""
    return (p for group in groups for p in group["params"])


def param_groups(model: nn.Module, *, weight_decay: float, prune_head: bool = False) -> list[dict[str, Any]]:
    """Split a model's parameters into named groups for any torch optimizer.

    Matrices and filters decay; norms, biases and other vectors do not. Weights of Linear, convolution and Hugging
    Face's transposed ``Conv1D`` modules are marked prunable, each tensor once, except embeddings, weights tied to one,
    and the classifier or head.

    Args:
        model: the model.
        weight_decay: decay of matrices and filters.
        prune_head: also mark the classifier or head (but not one tied to an embedding).

    Returns:
        Up to three groups with ``params`` as (name, parameter) pairs, ``weight_decay``, ``prunable``, ``left_out``
        (name to reason, of the tensors that are not prunable) and ``inputs_first`` (names of the weights whose first
        dimension is their inputs, along which patterns run).
    """
    reasons = _left_out(model, prune_head)
    transposed = {id(module.weight) for _, module in _weight_modules(model) if _is_transposed(module)}
    norms = {id(p) for module in model.modules() if _is_norm(module) for p in module.parameters(recurse=False)}
    split: dict[tuple[bool, bool], list[tuple[str, Tensor]]] = {(True, True): [], (True, False): [], (False, False): []}
    for name, p in model.named_parameters():
        decays = p.dim() >= 2 and id(p) not in norms
        split[decays, decays and name not in reasons].append((name, p))
    return [
        {
            "params": named,
            "weight_decay": weight_decay if decays else 0.0,
            "prunable": prunable,
            "left_out": {} if prunable else {name: reasons.get(name, "fewer than two dimensions") for name, _ in named},
            "inputs_first": [name for name, p in named if id(p) in transposed],
        }
        for (decays, prunable), named in split.items()
        if named
    ]


def _left_out(model: nn.Module, prune_head: bool) -> dict[str, str]:
    """Names of parameters that are not prunable, with the reason."""
    embedded = {
        id(p): name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for p in module.parameters(recurse=False)
    }
    prunable = {id(module.weight): name for name, module in _weight_modules(model)}
    head = None if prune_head else _head(model)
    reasons = {}
    for name, p in model.named_parameters():
        if id(p) in embedded:
            tied = id(p) in prunable
            reasons[name] = f"tied to the embedding {embedded[id(p)]}" if tied else "an embedding"
        elif id(p) not in prunable:
            reasons[name] = "fewer than two dimensions" if p.dim() < 2 else "not a Linear or convolution weight"
        elif head is not None and prunable[id(p)] == head:
            reasons[name] = "the classifier or head"
    return reasons


def _weight_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, _LINEAR) or _is_transposed(module):
            yield name, module


def _is_transposed(module: nn.Module) -> bool:
    """Whether the module's weight has its inputs in front: a transposed convolution, or Hugging Face's ``Conv1D``."""
    return isinstance(module, _TRANSPOSED) or type(module).__name__ == "Conv1D"


def _head(model: nn.Module) -> str | None:
    """The classifier or head: the last Linear that a head's name calls so."""
    named = [name for name, _ in _weight_modules(model) if name.split(".")[-1] in _HEAD_NAMES or "classifier" in name]
    return named[-1] if named else None


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()
