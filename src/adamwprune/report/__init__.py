# SPDX-License-Identifier: MIT
"""Tables, plots and one page, all read from what an experiment stored."""

from __future__ import annotations

from adamwprune.report.assemble import ReportPaths, build, table
from adamwprune.report.read import ReportError

__all__ = ["ReportError", "ReportPaths", "build", "table"]
