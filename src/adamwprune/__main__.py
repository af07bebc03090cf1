# SPDX-License-Identifier: MIT
"""``python -m adamwprune``."""

from adamwprune.cli import main

if __name__ == "__main__":
    main()
