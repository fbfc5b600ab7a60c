"""Images in, one format out: embedded sets, files in torchvision's layout, sheets, and the options all of them share.

A minimal dataset plug-in is a function of the split that returns images and labels::

    from gauntlet import dataset

    @dataset("my-letters")
    def my_letters(split):
        "Letters that I scanned."
        return images, labels  # arrays or tensors: (N, H, W) or (N, C, H, W), uint8 or float in [0, 1]; (N,) integers

It may also return the images alone (labels unknown), ``(images, labels, class_names)`` or an :class:`ImageSet`. What
the decorator is told saves loading: ``splits`` (default ``("test",)``; a ``val`` split is cut from ``train``),
``classes``, ``shape`` (C, H, W), ``versions`` (libraries whose version decides the content) and
``files(split, source, **parameters)``, the paths that a split is read from, so that absent files are reported and
changed ones noticed. Arguments after ``split`` (and ``source``, a :class:`DataSource`) are parameters.
"""

from __future__ import annotations

from .imageset import ImageSet
from .in_python import as_spec
from .options import OPTIONS
from .outliers import make_outliers
from .resolve import ResolvedDataset, resolve
from .source import DataSource

__all__ = ["OPTIONS", "DataSource", "ImageSet", "ResolvedDataset", "as_spec", "make_outliers", "resolve"]
