"""Plots of a finished store, one function a kind; adding one is one decorated function."""

from __future__ import annotations

from .kinds import PLOTS, Material, PlotKind, draw, kinds, plot, save

__all__ = ["PLOTS", "Material", "PlotKind", "draw", "kinds", "plot", "save"]
