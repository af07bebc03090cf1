# SPDX-License-Identifier: MIT
"""What a resolved config says about the arm it belongs to: its name, its optimizer, its differences to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Where a run was made, where its files lie, what is only read off it: differences here are warned of, and make no other
# arm.
PLACE_FIELDS = frozenset(
    {"activation_checkpointing", "data_dir", "checkpoint_every", "device", "threads", "deterministic"}
    | {"resume_from", "target_accuracy", "target_loss"}
)
# In what the runs of one arm may differ.
BESIDE_ARM = PLACE_FIELDS | {"seed", "target_sparsity"}
PRUNING_FIELDS = frozenset(
    {"pruning_method", "score", "target_sparsity", "prune_start", "prune_end", "prune_every", "schedule"}
    | {"distribution", "pattern", "regrow", "min_density"}
)
# Fields that a row's label already tells.
NAMED_FIELDS = frozenset({"optimizer", "base", "pruning_method", "score", "width", "model", "data"})
# A dense run is the counterpart of a pruned one whatever these say; variants of one method differ in the second set.
VARIANT_FIELDS = frozenset({"pruning_method", "score", "distribution", "target_sparsity"})


def label(config: Mapping[str, Any], target: float) -> str:
    """What a row is called: optimizer (and its base), then method (and its score, if it is not the method's own)."""
    optimizer = str(config.get("optimizer"))
    if optimizer == "adamwprune":
        optimizer += f"/{config.get('base')}"
    if target == 0.0:
        return f"{optimizer} {'small dense' if config.get('width', 1.0) < 1.0 else 'dense'}{width(config)}"
    method, score = config.get("pruning_method"), config.get("score")
    return f"{optimizer} {method}{f'/{score}' if score not in (None, method) else ''}{width(config)}"


def width(config: Mapping[str, Any]) -> str:
    """The part of a label that tells the width of a network; of one at its full width there is none."""
    return "" if config.get("width", 1.0) == 1.0 else f" (width {config['width']:g})"


def stepping(config: Mapping[str, Any]) -> str:
    """The optimizer whose update moves the weights: AdamWPrune's is its base."""
    return str(config.get("base") if config.get("optimizer") == "adamwprune" else config.get("optimizer"))


def differing(configs: Iterable[Mapping[str, Any]], ignored: frozenset[str] = frozenset()) -> list[str]:
    """Fields that do not have the same value in all of the configs, in field order."""
    listed = list(configs)
    names = dict.fromkeys(name for config in listed for name in config)
    return [name for name in names if name not in ignored and len({repr(config.get(name)) for config in listed}) > 1]
