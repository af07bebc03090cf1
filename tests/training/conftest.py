# SPDX-License-Identifier: MIT
from __future__ import annotations

import tiny

tiny.register()
