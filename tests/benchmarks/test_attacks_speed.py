"""Native fgsm and pgd against foolbox's, on cnn-small and MNIST (digits where GAUNTLET_DATA is not set).

The peer is used as its documentation shows: a PyTorchModel of the module in eval mode, images and model contiguous, in
one batch. Ours is timed in both memory formats, from entering the victim to leaving it. On one thread, in CPU time of
the process, so that neighbours on the machine do not count; rounds alternate, and the fastest of each side is compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gauntlet.attacks import Draws, Victim
from gauntlet.registry import ATTACKS, MODELS

pytestmark = pytest.mark.benchmark_suite

IMAGES = 512
ROUNDS = 3
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def mnist(root: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from gauntlet.datasets.idx import read_images, read_labels

    def read(prefix: str, count: int) -> tuple[Tensor, Tensor]:
        folder = root / "MNIST" / "raw"
        pixels, labels = (next(folder.glob(f"{prefix}-{kind}*")) for kind in ("images", "labels"))
        images = torch.from_numpy(read_images(pixels)[:count]).unsqueeze(1) / 255
        return images, torch.from_numpy(read_labels(labels)[:count]).long()

    return *read("train", 12000), *read("t10k", 700)


def upscaled_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    images = nn.functional.interpolate(images, size=28, mode="bilinear").clamp(0, 1)
    labels = torch.tensor(data.target)
    return images[:700], labels[:700], images[700:], labels[700:]


@pytest.fixture(scope="module")
def target() -> tuple[nn.Module, Tensor, Tensor]:
    """cnn-small after plain training, and 512 test images that it gets right."""
    root = os.environ.get("GAUNTLET_DATA")
    images, labels, test_images, test_labels = mnist(Path(root)) if root else upscaled_digits()
    torch.manual_seed(0)
    model = MODELS.create("cnn-small")
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(3 if root else 20):
        for batch in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        right = model(test_images).argmax(dim=1) == test_labels
    assert right.float().mean() > 0.9
    return model, test_images[right][:IMAGES], test_labels[right][:IMAGES]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fastest(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """CPU seconds of each side, the least of several alternating rounds."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, run in sides.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: min(taken) for name, taken in times.items()}


@pytest.mark.parametrize(
    ("name", "norm", "peer", "epsilon", "least"),
    [
        ("fgsm", "linf", "LinfFastGradientAttack", 0.3, 1),
        ("fgsm", "l2", "L2FastGradientAttack", 1.5, 1),
        ("pgd", "linf", "LinfPGD", 0.02, 1),
        ("pgd", "linf", "LinfPGD", 0.1, 1),
        ("pgd", "linf", "LinfPGD", 0.3, 4),
        ("pgd", "l2", "L2PGD", 1.5, 1),
    ],
)
def test_native_attacks_are_faster_than_foolboxes(benchmark, target, name, norm, peer, epsilon, least) -> None:
    import foolbox

    model, images, labels = target
    native = ATTACKS.create(name, norm=norm)
    theirs = getattr(foolbox.attacks, peer)(**({"rel_stepsize": 0.05} if peer == "L2PGD" else {}))
    rng = Draws("benchmark", torch.arange(len(images)))

    def ours(memory_format: torch.memory_format) -> float:
        with Victim(model, batch_size=IMAGES, memory_format=memory_format) as victim:
            (result,) = native.run(victim, images, labels, [epsilon], rng=rng)
        return result.success.float().mean().item()

    def peers() -> object:
        return theirs(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=epsilon)

    times = fastest({"foolbox": peers, **{name: partial(ours, FORMATS[name]) for name in FORMATS}})
    fooled = benchmark.pedantic(ours, args=(torch.channels_last,), rounds=1)
    ratios = {form: round(times["foolbox"] / times[form], 2) for form in FORMATS}
    benchmark.extra_info.update(ratios=ratios, fooled=round(fooled, 3), images=len(images))
    print(f"\n{name} {norm} eps {epsilon:g}: {ratios} of foolbox's {times['foolbox']:.2f} s; {fooled:.0%} fooled")
    assert ratios["contiguous"] >= 0.9  # never slower in the peer's own format, but for the noise of timing
    assert ratios["channels_last"] >= least  # the victim's own choice on a CPU
