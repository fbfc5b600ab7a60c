"""foolbox's attacks, one row each, with foolbox's own defaults (Rauber et al. 2020, doi 10.21105/joss.02607)."""

from __future__ import annotations

from ..registry import attack
from .foolbox_adapter import Row, factory

_GOODFELLOW = "Goodfellow et al. 2014, arXiv 1412.6572"
_KURAKIN = "Kurakin et al. 2016, arXiv 1607.02533"
_MADRY = "Madry et al. 2017, arXiv 1706.06083"
_MOOSAVI = "Moosavi-Dezfooli et al. 2015, arXiv 1511.04599"
_RAUBER = "Rauber et al. 2017, arXiv 1707.04131"
_WHITE = ("white-box", "r2")
_NOISE = ("noise", "r2")

ROWS = (
    Row("foolbox/linf/fgsm", "LinfFastGradientAttack", "LinFGA", "gradient", "fast", _GOODFELLOW, _WHITE),
    Row("foolbox/linf/pgd", "LinfProjectedGradientDescentAttack", "LinPGDA", "gradient", "fast", _MADRY, _WHITE),
    Row("foolbox/l2/fgm", "L2FastGradientAttack", "L2FGA", "gradient", "fast", _GOODFELLOW, _WHITE),
    Row("foolbox/l2/bim", "L2BasicIterativeAttack", "L2BIA", "gradient", "fast", _KURAKIN, _WHITE),
    Row("foolbox/l2/deepfool", "L2DeepFoolAttack", "L2DFA", "gradient", "fast", _MOOSAVI, _WHITE),
    Row("foolbox/l2/gaussian-noise", "L2AdditiveGaussianNoiseAttack", "L2AGNA", "none", "fast", _RAUBER, _NOISE),
    Row("foolbox/l2/salt-and-pepper", "SaltAndPepperNoiseAttack", "SAPNA", "decision", "standard", _RAUBER, _NOISE),
)

for _row in ROWS:
    attack(
        _row.name,
        norm=_row.norm,
        kind=_row.adapter.kind,
        access=_row.access,
        cost=_row.cost,
        tags=("foolbox", *_row.tags),
        aliases=(_row.alias,),
        reference=_row.reference,
        wraps=("foolbox",),
        row=repr(_row),
    )(factory(_row))
