# SPDX-License-Identifier: MIT
"""Settings of the whole suite."""

import os

import torch
from hypothesis import settings

# Triton's kernels are interpreted where there is no GPU. Triton reads the variable once, when anything imports it, and
# other libraries do: so it is set before the first test module is collected.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# No test is timed: the machine may be busy. The same examples are tried everywhere.
settings.register_profile("adamwprune", deadline=None, derandomize=True)
settings.load_profile("adamwprune")
