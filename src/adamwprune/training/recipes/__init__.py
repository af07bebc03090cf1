# SPDX-License-Identifier: MIT
"""The default hyper-parameters of each model, data set and optimizer: a file for each kind of network.

Arms of a comparison share everything here but what their optimizer needs otherwise: the Adam family has one schedule,
one learning rate and one length. :func:`adamwprune.training.resolve.resolve` fills configs from it.
"""

from adamwprune.training.recipes import gpt2, lenet5, resnet
from adamwprune.training.recipes.base import PRUNING, SPAM, ImageRecipe, Recipe, TextRecipe

#: By the model's recipe name and the data set.
RECIPES: dict[tuple[str, str], Recipe] = {**lenet5.RECIPES, **resnet.RECIPES, **gpt2.RECIPES}

__all__ = ["PRUNING", "RECIPES", "SPAM", "ImageRecipe", "Recipe", "TextRecipe"]
