"""Native attacks against foolbox's and torchattacks', on cnn-small and MNIST (digits where GAUNTLET_DATA is not set).

The peer is used as its documentation shows: foolbox's PyTorchModel of the module in eval mode, images and model
contiguous, in one batch. Ours is timed in both memory formats, from entering the victim to leaving it. On one thread,
in CPU time of the process, so that neighbours on the machine do not count; rounds alternate, and the fastest of each
side is compared.
"""

from __future__ import annotations

import copy
import time
from functools import partial

import pytest
import torch
from torch import nn

from gauntlet.attacks import PerImageRNG, Victim
from gauntlet.registry import ATTACKS, MODELS

from .conftest import IMAGES, trained

pytestmark = [pytest.mark.benchmark_suite, pytest.mark.usefixtures("one_thread")]

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def attacked(model: nn.Module, x, y, memory_format: torch.memory_format, name: str, epsilons, **parameters) -> float:
    """Runs a native attack; returns the share fooled at the last epsilon."""
    with Victim(model, batch_size=IMAGES, memory_format=memory_format) as victim:
        rng = PerImageRNG("benchmark", torch.arange(len(x)))
        results = ATTACKS.create(name, **parameters).run(victim, x, y, epsilons, rng=rng)
    return results[-1].success.float().mean().item()


def foolboxes(model: nn.Module, x, y, original, epsilons):
    import foolbox

    return original(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=epsilons)


@pytest.mark.parametrize(
    ("name", "norm", "peer", "epsilon", "least"),
    [
        ("fgsm", "linf", "LinfFastGradientAttack", 0.3, 1),
        ("fgsm", "l2", "L2FastGradientAttack", 1.5, 1),
        ("pgd", "linf", "LinfPGD", 0.02, 1.5),
        ("pgd", "linf", "LinfPGD", 0.1, 1),
        ("pgd", "linf", "LinfPGD", 0.3, 5),
        ("pgd", "l2", "L2PGD", 1.5, 1),
    ],
)
def test_native_attacks_are_faster_than_foolboxes(benchmark, target, fastest, name, norm, peer, epsilon, least) -> None:
    import foolbox

    model, images, labels = target
    theirs = getattr(foolbox.attacks, peer)(**({"rel_stepsize": 0.05} if peer == "L2PGD" else {}))

    def ours(memory_format: torch.memory_format) -> float:
        return attacked(model, images, labels, memory_format, name, [epsilon], norm=norm)

    peers = partial(foolboxes, model, images, labels, theirs, epsilon)
    times = fastest({"foolbox": peers, **{name: partial(ours, FORMATS[name]) for name in FORMATS}})
    fooled = benchmark.pedantic(ours, args=(torch.channels_last,), rounds=1)
    ratios = {form: round(times["foolbox"] / times[form], 2) for form in FORMATS}
    benchmark.extra_info.update(ratios=ratios, fooled=round(fooled, 3), images=len(images))
    print(f"\n{name} {norm} eps {epsilon:g}: {ratios} of foolbox's {times['foolbox']:.2f} s; {fooled:.0%} fooled")
    assert ratios["contiguous"] >= 0.9  # never slower in the peer's own format, but for the noise of timing
    assert ratios["channels_last"] >= least  # the victim's own choice on a CPU


def bare_loop(model: nn.Module, x, y, epsilon: float, steps: int = 40) -> torch.Tensor:
    """PGD as one writes it by hand: frozen, in the faster memory format, without looking at who is fooled."""
    model.requires_grad_(False).to(memory_format=torch.channels_last)
    moved = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1).to(memory_format=torch.channels_last)
    for _ in range(steps):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(moved), y, reduction="sum"), moved)
        with torch.no_grad():
            stepped = moved + epsilon / 30 * gradient.sign()
            moved = (x + (stepped - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    fooled = model(moved).argmax(dim=1) != y
    model.requires_grad_(True).to(memory_format=torch.contiguous_format)
    return fooled


def test_pgd_is_within_a_twentieth_of_a_bare_loop_where_hardly_an_image_leaves(target, fastest) -> None:
    model, images, labels = target
    sides = {
        "bare": partial(bare_loop, model, images, labels, 0.005),
        "ours": partial(attacked, model, images, labels, torch.channels_last, "pgd", [0.005]),
    }
    times = fastest(sides, rounds=4)
    ratio = times["ours"] / times["bare"]
    print(f"\npgd: {ratio:.3f} of a bare loop's {times['bare']:.2f} s")
    assert ratio <= 1.05


@pytest.mark.parametrize(
    ("name", "parameters", "peer", "images", "least"),
    [
        ("deepfool", {}, "L2DeepFoolAttack", IMAGES, 3.5),
        ("deepfool", {"norm": "linf"}, "LinfDeepFoolAttack", IMAGES, 3.5),
        ("salt-and-pepper", {"steps": 1000}, "SaltAndPepperNoiseAttack", 64, 1.15),
        ("ddn", {}, "DDNAttack", 256, 1),
        ("fmn", {}, "L2FMNAttack", 256, 1),
    ],
)
def test_minimum_norm_attacks_are_faster_than_foolboxes(
    benchmark, target, fastest, name, parameters, peer, images, least
) -> None:
    import foolbox

    model, x, y = target
    x, y = x[:images], y[:images]

    def ours(memory_format: torch.memory_format) -> float:
        return attacked(model, x, y, memory_format, name, [1.5], **parameters)

    peers = partial(foolboxes, model, x, y, getattr(foolbox.attacks, peer)(), None)
    times = fastest({"foolbox": peers, **{form: partial(ours, FORMATS[form]) for form in FORMATS}}, rounds=2)
    benchmark.pedantic(ours, args=(torch.channels_last,), rounds=1)
    ratios = {form: round(times["foolbox"] / times[form], 2) for form in FORMATS}
    benchmark.extra_info.update(ratios=ratios, images=len(x))
    print(f"\n{name} {parameters}: {ratios} of foolbox's {times['foolbox']:.2f} s")
    assert ratios["channels_last"] >= least


def on_gpu_seconds(work, rounds: int = 3) -> float:
    """The least wall time of several rounds after one that does not count; a GPU has no clock of the process."""
    times = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("name", "peer", "epsilon", "least"),
    [
        ("pgd", "LinfPGD", 0.02, 1.5),
        ("pgd", "LinfPGD", 0.3, 5),
        ("deepfool", "L2DeepFoolAttack", 1.5, 3.5),
        ("salt-and-pepper", "SaltAndPepperNoiseAttack", 1.5, 1.15),
    ],
)
def test_native_attacks_are_faster_than_foolboxes_on_a_gpu(target, name, peer, epsilon, least) -> None:
    import foolbox

    net, images, labels = target
    model, x, y = copy.deepcopy(net).cuda(), images.cuda(), labels.cuda()
    theirs = getattr(foolbox.attacks, peer)()
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cuda")

    def ours() -> None:
        with Victim(model, device=torch.device("cuda"), batch_size=IMAGES) as victim:
            draws = PerImageRNG("benchmark", torch.arange(len(x), device="cuda"))
            ATTACKS.create(name).run(victim, x, y, [epsilon], rng=draws)

    ratio = on_gpu_seconds(lambda: theirs(wrapped, x, y, epsilons=epsilon)) / on_gpu_seconds(ours)
    print(f"\n{name} eps {epsilon:g} on a GPU: {ratio:.2f} times foolbox")
    assert ratio >= least


#: Report R2's attacks: label, ours, its parameters, foolbox's, whether it follows gradients.
R2 = [
    ("L2BIA", "bim", {"norm": "l2"}, "L2BasicIterativeAttack", {}, True),
    ("L2AGNA", "gaussian-noise", {}, "L2AdditiveGaussianNoiseAttack", {}, False),
    ("L2DFA", "deepfool", {}, "L2DeepFoolAttack", {}, True),
    ("L2FGA", "fgm-l2", {}, "L2FastGradientAttack", {}, True),
    ("LinFGA", "fgsm", {}, "LinfFastGradientAttack", {}, True),
    ("LinPGDA", "pgd", {}, "LinfPGD", {}, True),
    ("SAPNA", "salt-and-pepper", {"steps": 100}, "SaltAndPepperNoiseAttack", {"steps": 100}, False),
]


def r2_ensemble() -> nn.Module:
    parts = [MODELS.create(name, width=0.125, conv_bias=True, activation="gelu") for name in ("m3", "m5", "m7")]
    return MODELS.create("ensemble", members=parts)


@pytest.mark.parametrize(("kind", "images"), [("cnn-small", 256), ("ensemble", 32)])
def test_the_grid_of_report_r2_is_faster_than_foolboxes(target, data, fastest, kind, images) -> None:
    """Seven attacks at three budgets; the gradient attacks together four times as fast, and none slower."""
    import foolbox

    torch.manual_seed(0)
    model, x, y = target if kind == "cnn-small" else trained(data, r2_ensemble(), epochs=1)
    x, y = x[:images], y[:images]
    epsilons = [0.3, 1.5, 10.0]
    ours, theirs, ratios = {}, {}, {}
    for label, name, parameters, peer, settings, gradient in R2:
        original = getattr(foolbox.attacks, peer)(**settings)
        times = fastest(
            {
                "foolbox": partial(foolboxes, model, x, y, original, epsilons),
                "ours": partial(attacked, model, x, y, torch.channels_last, name, epsilons, **parameters),
            },
            rounds=2,
        )
        ratios[label] = round(times["foolbox"] / times["ours"], 2)
        if gradient:
            ours[label], theirs[label] = times["ours"], times["foolbox"]
    together = sum(theirs.values()) / sum(ours.values())
    print(f"\n{kind}: gradient attacks together {together:.2f}; {ratios}")
    assert together >= 4
    assert min(ratios.values()) >= 0.95  # no attack slower, but for the noise of timing


def test_autoattack_is_faster_than_torchattacks(robust, fastest) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = robust
    x, y = x[:24], y[:24]

    def peers() -> None:
        # Its AutoAttack takes ten steps where the paper takes a hundred: the same parts at the paper's length.
        options = {"eps": 0.1, "steps": 100}
        parts = [
            torchattacks.APGD(model, **options),
            torchattacks.APGDT(model, **options),
            torchattacks.FAB(model, **options, multi_targeted=True, n_classes=10),
            torchattacks.Square(model, eps=0.1, n_queries=5000),
        ]
        torchattacks.MultiAttack(parts)(x, y)

    def ours(memory_format: torch.memory_format) -> float:
        return attacked(model, x, y, memory_format, "autoattack", [0.1])

    sides = {"torchattacks": peers, **{form: partial(ours, FORMATS[form]) for form in FORMATS}}
    times = fastest(sides, rounds=1)
    ratios = {form: round(times["torchattacks"] / times[form], 2) for form in FORMATS}
    print(f"\nautoattack: {ratios} of torchattacks' {times['torchattacks']:.1f} s")
    assert ratios["channels_last"] >= 1.5
    assert ratios["contiguous"] >= 1.1
