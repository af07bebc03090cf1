# SPDX-License-Identifier: MIT
"""GPT-2's weights to and from Hugging Face ``transformers``.

Its ``GPT2LMHeadModel`` has the same modules under ``transformer.``. It stores the matrices of the blocks transposed
(``Conv1D``) and the tied head a second time. Neither direction needs ``transformers`` itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adamwprune.models.gpt2 import GPT2, padded

PREFIX = "transformer."
HEAD = "lm_head.weight"
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
#: Causal masks that older versions stored as weights.
MASKS = (".attn.bias", ".attn.masked_bias")


def to_hugging_face(model: GPT2, vocabulary: int | None = None) -> dict[str, Tensor]:
    """The state dict that ``GPT2LMHeadModel.load_state_dict`` takes; matrices are views of the model's.

    ``vocabulary`` leaves out the rows that the embedding was filled up with.
    """
    state = {PREFIX + name: _turned(name, value) for name, value in model.state_dict().items()}
    state[PREFIX + "wte.weight"] = state[PREFIX + "wte.weight"][:vocabulary]
    return {**state, HEAD: state[PREFIX + "wte.weight"]}


def load_hugging_face(model: GPT2, state: Mapping[str, Tensor]) -> None:
    """Take the weights of a ``GPT2LMHeadModel`` or ``GPT2Model``. Rows that fill the embedding up become their mean.

    Raises:
        ValueError: a weight is missing, unknown or of another shape, or the head is not the token embedding; nothing
            was changed.
    """
    ours = model.state_dict()
    given = {
        name.removeprefix(PREFIX): value for name, value in state.items() if name != HEAD and not name.endswith(MASKS)
    }
    if missing := sorted(ours.keys() - given.keys()):
        raise ValueError(f"the state dict lacks {missing[0]} ({len(missing)} weights in all): is it a GPT-2's?")
    if unknown := sorted(given.keys() - ours.keys()):
        raise ValueError(f"this GPT-2 has no {unknown[0]} ({len(unknown)} weights in all): has it fewer blocks?")
    turned = {name: _turned(name, value) for name, value in given.items()}
    head = state.get(HEAD)
    if head is not None and not head.equal(turned["wte.weight"]):
        raise ValueError(f"{HEAD} differs from the token embedding, and GPT-2 has one matrix for both")
    rows = turned["wte.weight"]
    if padded(len(rows)) == model.shape.vocabulary:
        filled = rows.mean(0, keepdim=True).expand(model.shape.vocabulary - len(rows), -1)
        turned["wte.weight"] = torch.cat([rows, filled])
    for name, value in turned.items():
        if value.shape != ours[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, this model's is {tuple(ours[name].shape)}: "
                "build the model with the checkpoint's shape"
            )
    model.load_state_dict(turned)


def _turned(name: str, value: Tensor) -> Tensor:
    """A block's matrix as the other side stores it."""
    return value.t() if name.endswith(TRANSPOSED) else value
