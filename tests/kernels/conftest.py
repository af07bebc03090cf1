# SPDX-License-Identifier: MIT
"""Triton's kernels are interpreted where there is no GPU. Triton reads the variable when they are imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
