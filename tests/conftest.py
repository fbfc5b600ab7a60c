"""Several workers (``pytest -n auto``) share the cores: each computes on one."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything imports torch, which reads it once
    os.environ.setdefault("OMP_NUM_THREADS", "1")
