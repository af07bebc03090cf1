# SPDX-License-Identifier: MIT
"""The one update, several ways. So far the reference in plain tensor code; native and Triton kernels join it here."""

#: Raised whenever a kernel's arithmetic changes.
VERSION = 1


def backend(device_type: str) -> str:
    """Name of the kernels that run on a device type; part of a run's identity."""
    return "reference"
