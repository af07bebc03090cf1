# SPDX-License-Identifier: MIT
"""These tests train on the scans that come with scikit-learn."""

import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
