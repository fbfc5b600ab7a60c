"""Kinds of data set that read people's own files: folders, lists, tables and arrays."""

from __future__ import annotations

from . import arrays, image_folder, image_list, imagenet, named, openood

__all__ = ["arrays", "image_folder", "image_list", "imagenet", "named", "openood"]
