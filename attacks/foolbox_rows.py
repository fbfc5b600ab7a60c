"""foolbox's 58 attack classes, one row each (Rauber et al. 2020, doi 10.21105/joss.02607); what is weak says so."""

from __future__ import annotations

from .foolbox_row import Row

_ADAM = "Madry et al. 2017, arXiv 1706.06083, with the steps of Kingma & Ba 2014, arXiv 1412.6980"
_ALZANTOT = "Alzantot et al. 2018, arXiv 1805.11090"
_BRENDEL = "Brendel et al. 2017, arXiv 1712.04248"
_BETHGE = "Brendel et al. 2019, arXiv 1907.01003"
_CLIPPED = "Rauber & Bethge 2020, arXiv 2007.07677"
_CARLINI = "Carlini & Wagner 2016, arXiv 1608.04644"
_CHEN_EAD = "Chen et al. 2017, arXiv 1709.04114"
_CHEN_HSJ = "Chen et al. 2019, arXiv 1904.02144"
_DONG = "Dong et al. 2017, arXiv 1710.06081"
_ENGSTROM = "Engstrom et al. 2017, arXiv 1712.02779"
_GOODFELLOW = "Goodfellow et al. 2014, arXiv 1412.6572"
_HOSSEINI = "Hosseini et al. 2017, arXiv 1703.06857"
_JANG = "Jang et al. 2017, doi 10.1145/3134600.3134635"
_KURAKIN = "Kurakin et al. 2016, arXiv 1607.02533"
_MADRY = "Madry et al. 2017, arXiv 1706.06083"
_MIYATO = "Miyato et al. 2015, arXiv 1507.00677"
_MOOSAVI = "Moosavi-Dezfooli et al. 2015, arXiv 1511.04599"
_PINTOR = "Pintor et al. 2021, arXiv 2102.12827"
_RAUBER = "Rauber et al. 2017, arXiv 1707.04131"
_RONY = "Rony et al. 2018, arXiv 1811.09600"
_SCHOTT = "Schott et al. 2018, arXiv 1805.09190"
_TRAMER = "Tramèr & Boneh 2019, arXiv 1904.13000"

_NOISE, _DISTORTION = ("noise",), ("distortion",)

_SHORT = "weak: 50 steps of 0.025 epsilons travel little further than the radius; rel_stepsize: 0.1 is stronger"
_LEVEL = "weak: Adam levels the entries of the gradient, whichever the norm, and so wastes the budget"
_NO_ADAM = "broken: it never makes its Adam optimiser, and takes the plain steps of bim"
_DENSE = "weak: its dense step spends an L1 budget on every pixel at once"
_SIGNS = "weak: it accumulates the signs of the gradients, the paper the gradients"
_NAN = "broken: where the gradient vanishes it returns NaN, which foolbox counts as a success (here it never is one)"
_UNPROJECTED = "broken: it never projects, so that the distances it finds are too large"
_LOSS_SUM = "its early abort looks at the loss summed over the chunk"
_PROBES = "its probes are normalised over the whole chunk: smaller chunks find nearer images"

# fmt: off
LINF = (
    Row("foolbox/linf/fgsm", "LinfFastGradientAttack", _GOODFELLOW, tags=("single-step", "r2"), alias="LinFGA"),
    Row("foolbox/linf/bim", "LinfBasicIterativeAttack", _KURAKIN),
    Row("foolbox/linf/pgd", "LinfProjectedGradientDescentAttack", _MADRY, tags=("r2",), alias="LinPGDA"),
    Row("foolbox/linf/mi-fgsm", "LinfMomentumIterativeFastGradientMethod", _DONG, known_fault=_SIGNS),
    Row("foolbox/linf/adam-bim", "LinfAdamBasicIterativeAttack", _ADAM),
    Row("foolbox/linf/adam-pgd", "LinfAdamProjectedGradientDescentAttack", _ADAM),
    Row("foolbox/linf/deepfool", "LinfDeepFoolAttack", _MOOSAVI),
    Row("foolbox/linf/fmn", "LInfFMNAttack", _PINTOR),
    Row("foolbox/linf/brendel-bethge", "LinfinityBrendelBethgeAttack", _BETHGE, cost="full", start="blended"),
    Row("foolbox/linf/hopskipjump", "HopSkipJumpAttack", _CHEN_HSJ, "decision", "full",
        fixed={"constraint": "linf"}, start="blended-50", chunk=16, coupling=_PROBES),
    Row("foolbox/linf/gen", "GenAttack", _ALZANTOT, "score", "full", targeted=True),
    Row("foolbox/linf/uniform-noise", "LinfAdditiveUniformNoiseAttack", _RAUBER, "none", tags=_NOISE),
    Row("foolbox/linf/repeated-uniform-noise", "LinfRepeatedAdditiveUniformNoiseAttack", _RAUBER, "decision",
        tags=_NOISE),
)

L2 = (
    Row("foolbox/l2/fgm", "L2FastGradientAttack", _GOODFELLOW, tags=("single-step", "r2"), alias="L2FGA"),
    Row("foolbox/l2/bim", "L2BasicIterativeAttack", _KURAKIN, tags=("r2",), alias="L2BIA"),
    Row("foolbox/l2/pgd", "L2ProjectedGradientDescentAttack", _MADRY, known_fault=_SHORT),
    Row("foolbox/l2/mi-fgm", "L2MomentumIterativeFastGradientMethod", _DONG),
    Row("foolbox/l2/adam-bim", "L2AdamBasicIterativeAttack", _ADAM, known_fault=_NO_ADAM),
    Row("foolbox/l2/adam-pgd", "L2AdamProjectedGradientDescentAttack", _ADAM, known_fault=_LEVEL),
    Row("foolbox/l2/vat", "VirtualAdversarialAttack", _MIYATO, tags=("single-step",), given={"steps": 10},
        known_fault=_NAN),
    Row("foolbox/l2/ddn", "DDNAttack", _RONY),
    Row("foolbox/l2/deepfool", "L2DeepFoolAttack", _MOOSAVI, tags=("r2",), alias="L2DFA"),
    Row("foolbox/l2/cw", "L2CarliniWagnerAttack", _CARLINI, cost="full", coupling=_LOSS_SUM),
    Row("foolbox/l2/fmn", "L2FMNAttack", _PINTOR, known_fault=_UNPROJECTED),
    Row("foolbox/l2/brendel-bethge", "L2BrendelBethgeAttack", _BETHGE, cost="full", start="blended"),
    Row("foolbox/l2/newtonfool", "NewtonFoolAttack", _JANG, known_fault=_NAN),
    Row("foolbox/l2/boundary", "BoundaryAttack", _BRENDEL, "decision", "full",
        start="blended-50", chunk=16, coupling="one random direction serves the whole chunk"),
    Row("foolbox/l2/hopskipjump", "HopSkipJumpAttack", _CHEN_HSJ, "decision", "full",
        fixed={"constraint": "l2"}, start="blended-50", chunk=16, coupling=_PROBES),
    Row("foolbox/l2/gaussian-noise", "L2AdditiveGaussianNoiseAttack", _RAUBER, "none",
        tags=("noise", "r2"), alias="L2AGNA"),
    Row("foolbox/l2/uniform-noise", "L2AdditiveUniformNoiseAttack", _RAUBER, "none", tags=_NOISE),
    Row("foolbox/l2/clipped-gaussian-noise", "L2ClippingAwareAdditiveGaussianNoiseAttack", _CLIPPED, "none",
        tags=_NOISE),
    Row("foolbox/l2/clipped-uniform-noise", "L2ClippingAwareAdditiveUniformNoiseAttack", _CLIPPED, "none",
        tags=_NOISE),
    Row("foolbox/l2/repeated-gaussian-noise", "L2RepeatedAdditiveGaussianNoiseAttack", _RAUBER, "decision",
        tags=_NOISE),
    Row("foolbox/l2/repeated-uniform-noise", "L2RepeatedAdditiveUniformNoiseAttack", _RAUBER, "decision", tags=_NOISE),
    Row("foolbox/l2/clipped-repeated-gaussian-noise", "L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack", _CLIPPED,
        "decision", tags=_NOISE),
    Row("foolbox/l2/clipped-repeated-uniform-noise", "L2ClippingAwareRepeatedAdditiveUniformNoiseAttack", _CLIPPED,
        "decision", tags=_NOISE),
    Row("foolbox/l2/contrast-reduction", "L2ContrastReductionAttack", _RAUBER, "none", tags=_DISTORTION),
    Row("foolbox/l2/salt-and-pepper", "SaltAndPepperNoiseAttack", _RAUBER, "decision", "standard",
        tags=("noise", "r2"), alias="SAPNA"),
    Row("foolbox/l2/inversion", "InversionAttack", _HOSSEINI, "none", tags=_DISTORTION),
    Row("foolbox/l2/dataset", "DatasetAttack", _RAUBER, "decision",
        feed=True, coupling="it tries the other images of the chunk"),
    Row("foolbox/l2/gaussian-blur", "GaussianBlurAttack", _RAUBER, "decision", "standard", tags=_DISTORTION),
    Row("foolbox/l2/binary-search-contrast", "BinarySearchContrastReductionAttack", _RAUBER, "decision",
        tags=_DISTORTION),
    Row("foolbox/l2/linear-search-contrast", "LinearSearchContrastReductionAttack", _RAUBER, "decision", "standard",
        tags=_DISTORTION),
    Row("foolbox/l2/blended-noise", "LinearSearchBlendedUniformNoiseAttack", _RAUBER, "decision", "standard",
        tags=_NOISE),
    Row("foolbox/l2/binarization-refinement", "BinarizationRefinementAttack", _RAUBER, "decision",
        unavailable="it only refines what another attack found, and only on a model that thresholds its input"),
)

L1 = (
    Row("foolbox/l1/fgm", "L1FastGradientAttack", _GOODFELLOW, tags=("single-step",), known_fault=_DENSE),
    Row("foolbox/l1/bim", "L1BasicIterativeAttack", _KURAKIN, known_fault=_DENSE),
    Row("foolbox/l1/pgd", "L1ProjectedGradientDescentAttack", _MADRY, known_fault=_SHORT),
    Row("foolbox/l1/mi-fgm", "L1MomentumIterativeFastGradientMethod", _DONG, known_fault=_DENSE),
    Row("foolbox/l1/adam-bim", "L1AdamBasicIterativeAttack", _ADAM, known_fault=_NO_ADAM),
    Row("foolbox/l1/adam-pgd", "L1AdamProjectedGradientDescentAttack", _ADAM, known_fault=_LEVEL),
    Row("foolbox/l1/sparse-descent", "SparseL1DescentAttack", _TRAMER),
    Row("foolbox/l1/ead", "EADAttack", _CHEN_EAD, cost="full", coupling=_LOSS_SUM),
    Row("foolbox/l1/fmn", "L1FMNAttack", _PINTOR),
    Row("foolbox/l1/brendel-bethge", "L1BrendelBethgeAttack", _BETHGE, cost="full", start="blended"),
)

L0 = (
    Row("foolbox/l0/fmn", "L0FMNAttack", _PINTOR),
    Row("foolbox/l0/brendel-bethge", "L0BrendelBethgeAttack", _BETHGE, cost="full", start="blended"),
    Row("foolbox/l0/pointwise", "PointwiseAttack", _SCHOTT, "decision", "standard", start="salt-and-pepper"),
)

NONE = (Row("foolbox/none/spatial", "SpatialAttack", _ENGSTROM, "decision", tags=_DISTORTION),)

ROWS = (*LINF, *L2, *L1, *L0, *NONE)
