# SPDX-License-Identifier: MIT
"""The networks, and what each says of itself: input, loss, default data set, default recipe.

A new network is one file with a build function and one line in ``registry.py``.
"""

from adamwprune.models.registry import BLOCKS, MODELS, VERSION, ImageShape, ModelInfo, TextShape, build, find

__all__ = ["BLOCKS", "MODELS", "VERSION", "ImageShape", "ModelInfo", "TextShape", "build", "find"]
