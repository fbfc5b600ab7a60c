"""Adversaries: native attacks and the foolbox suite, against a model that is wrapped as a victim."""

from __future__ import annotations

from ..datasets.per_image_rng import PerImageRNG
from .base import Attack, AttackResult
from .function import build_attack
from .norms import check_ball, perturbation_norms
from .victim import Victim

__all__ = ["Attack", "AttackResult", "PerImageRNG", "Victim", "build_attack", "check_ball", "perturbation_norms"]
