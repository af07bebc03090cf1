# SPDX-License-Identifier: MIT
"""Callbacks for training frameworks; each module imports its framework, and nothing imports them by itself."""
