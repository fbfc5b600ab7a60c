"""Every attack with models, images and labels as people have them: odd precisions, NaN, few classes, other layouts."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gauntlet.attacks import Attack, AttackResult, PerImageRNG, Victim, build_attack
from gauntlet.attacks.base import verified
from gauntlet.attacks.conformance import few_steps
from gauntlet.attacks.inputs import output_kind
from gauntlet.attacks.steps import PATH
from gauntlet.registry import ATTACKS, Entry, GauntletError

# numba compiles each of foolbox's Brendel-Bethge attacks for many seconds.
POSSIBLE = [entry for entry in ATTACKS if not entry.meta.get("unavailable") and "brendel-bethge" not in entry.name]
MANY_QUERIES = ("foolbox/l0/pointwise", "foolbox/l2/hopskipjump", "foolbox/linf/hopskipjump")
every_attack = pytest.mark.parametrize(
    "entry",
    [pytest.param(entry, marks=[pytest.mark.slow] if entry.name in MANY_QUERIES else []) for entry in POSSIBLE],
    ids=lambda entry: entry.name,
)
gradient_attacks = pytest.mark.parametrize(
    "entry", [entry for entry in POSSIBLE if entry.meta["access"] == "gradient"], ids=lambda entry: entry.name
)
either_kind = pytest.mark.parametrize("name", ["pgd", "foolbox/linf/pgd"])
#: They leave the black pixels before they take a gradient.
NEVER_BLACK = ("cw-l2", "cw-linf", "foolbox/l2/cw", "foolbox/l2/vat")
AMPLE = {"linf": 0.2, "l2": 1.5, "l1": 8.0, "l0": 6, "none": 1.0}


class Changed(nn.Module):
    """A network, its images and its outputs changed."""

    def __init__(self, network: nn.Module, before=lambda images: images, after=lambda logits: logits) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.network(self.before(images)))


@pytest.fixture(scope="module")
def some(correct) -> tuple[Tensor, Tensor]:
    return correct[0][:6], correct[1][:6]


def run(entry: Entry | str, model: nn.Module, images: Tensor, labels: Tensor, **parameters) -> AttackResult:
    entry = ATTACKS.get(entry) if isinstance(entry, str) else entry
    attack = build_attack(entry, {**few_steps(entry), **parameters})
    with warnings.catch_warnings(), Victim(model, surrogate=Victim(model)) as victim:
        warnings.simplefilter("ignore")
        rng = PerImageRNG("k", torch.arange(len(images)))
        return attack.run(victim, images, labels, [AMPLE[attack.norm]], rng=rng)[0]


@every_attack
def test_logits_of_any_precision_give_the_success_of_float32(entry, trained, some) -> None:
    plain = run(entry, trained, *some).success
    for dtype, differ in ((torch.float64, 0), (torch.float16, 2), (torch.bfloat16, 3)):
        found = run(entry, Changed(trained, after=lambda logits, dtype=dtype: logits.to(dtype)), *some)
        assert found.images.dtype == torch.float32
        if "broken" not in entry.tags:  # foolbox's vat takes the gradient of rounding errors
            assert (found.success != plain).sum() <= differ


@gradient_attacks
def test_a_gradient_that_is_no_number_at_black_pixels_costs_only_those(entry, trained, some) -> None:
    bad = run(entry, Changed(trained, before=lambda images: (images * images).sqrt()), *some)
    good = run(entry, Changed(trained, before=lambda images: (images * images + 1e-9).sqrt()), *some)
    assert bad.success.sum() >= good.success.sum() - 2
    if entry.name not in NEVER_BLACK:
        assert bad.lost_gradients > 0
    assert good.lost_gradients == 0
    assert not bad.broken.any()


@every_attack
def test_nan_logits_are_neither_robust_nor_fooled_whatever_the_attack(entry, trained, some) -> None:
    """The model breaks as soon as an image leaves the grid of its pixels, as a table look-up would."""

    def on_grid(images: Tensor) -> Tensor:
        off = ((images * 16) - (images * 16).round()).abs().flatten(1).amax(dim=1) > 0.02
        return torch.where(off[:, None], torch.nan, trained(images))

    model = Changed(nn.Identity(), after=on_grid)
    found = run(entry, model, *some)
    with torch.no_grad():
        outputs = trained.eval()(found.images)
        broken = on_grid(found.images).isnan().any(dim=1)
    assert torch.equal(found.broken, broken)
    assert not (found.success & broken).any()
    assert torch.equal(found.success, (outputs.argmax(dim=1) != some[1]) & ~broken)
    if entry.meta["access"] == "gradient" and entry.meta["norm"] == "linf" and entry.meta["kind"] == "fixed":
        assert broken.all()


@every_attack
def test_images_with_a_graph_and_inference_mode_change_nothing(entry, trained, some) -> None:
    plain = run(entry, trained, *some)
    grown = run(entry, trained, some[0].clone().requires_grad_(), some[1])
    assert not grown.images.requires_grad
    with torch.inference_mode():
        inside = run(entry, trained, some[0].clone(), some[1].clone())
    for found in (grown, inside):
        torch.testing.assert_close(found.images, plain.images, rtol=0, atol=1e-6)
        assert torch.equal(found.success, plain.success)


@every_attack
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_enough_or_one_sentence_known_beforehand(entry, classes) -> None:
    generator = torch.Generator().manual_seed(classes)
    layer = nn.Linear(36, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, 36, generator=generator))
        layer.bias.copy_(-layer.weight.sum(dim=1) / 2)
    model, images = nn.Sequential(nn.Flatten(), layer), torch.rand(4, 1, 6, 6, generator=generator)
    labels = model(images).argmax(dim=1)
    if "" in build_attack(entry, few_steps(entry)).left_out(classes):
        with pytest.raises(GauntletError, match=f"needs at least [34] classes .*the model has {classes}"):
            run(entry, model, images, labels)
    else:
        assert run(entry, model, images, labels).images.isfinite().all()


def test_what_few_classes_leave_out_is_named() -> None:
    def left_out(name: str, classes: int, **parameters) -> list[str]:
        return [*build_attack(name, parameters).left_out(classes)]

    assert left_out("apgd-dlr", 2) == left_out("apgd-t", 3) == left_out("pgd", 2, loss="dlr") == [""]
    assert left_out("apgd-dlr", 3) == left_out("apgd-t", 4) == left_out("pgd", 2) == []
    assert left_out("transfer", 2, attack={"pgd": {"loss": "dlr"}}) == [""]
    assert left_out("autoattack", 3) == left_out("autoattack", 2) == ["apgd-t"]
    assert left_out("autoattack", 2, version="rand") == ["apgd-dlr"]
    assert left_out("autoattack", 3, version="rand") == left_out("autoattack", 4) == []


class Eraser(Attack):
    """Writes into what it is given."""

    def __init__(self, what: str) -> None:
        self.what = what

    def attack(self, victim, images, labels, epsilons, rng):
        made = (images + 0.01).clamp(0, 1)
        {"images": images.zero_, "data": images.data.zero_, "labels": labels.zero_}[self.what]()
        for epsilon in epsilons:
            yield verified(victim, images, labels, made, "linf", epsilon)


@pytest.mark.parametrize("what", ["images", "data", "labels"])
def test_an_attack_that_writes_into_what_it_is_given_fails_by_name_and_harms_nothing(trained, some, what) -> None:
    images, labels = some[0].clone(), some[1].clone()
    with Victim(trained) as victim, pytest.raises(GauntletError, match="writes into the images or labels"):
        Eraser(what).run(victim, images, labels, [0.1], rng=PerImageRNG("k", torch.arange(6)))
    assert torch.equal(images, some[0])
    assert torch.equal(labels, some[1])


@either_kind
@pytest.mark.parametrize(
    "convert",
    [
        lambda x, y: (x.double(), y.int()),
        lambda x, y: (x.double().numpy(), y.numpy()),
        lambda x, y: (x, y[:, None]),
        lambda x, y: (x, F.one_hot(y, 10)),
        lambda x, y: (x, F.one_hot(y, 10).float()),
        lambda x, y: (x, y.float()),
    ],
)
def test_images_and_labels_in_another_form_are_converted(trained, some, name, convert) -> None:
    expected, found = run(name, trained, *some), run(name, trained, *convert(*some))
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.success, expected.success)


def test_eight_bit_images_are_converted(trained, some) -> None:
    pixels = (some[0] * 255).round().byte()
    assert torch.equal(run("pgd", trained, pixels, some[1]).images, run("pgd", trained, pixels / 255, some[1]).images)


@either_kind
@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda x, y: (x * 255, y), r"must lie in \[0, 1\].*span \[0, 255\]: divide them, as in images / 255"),
        (lambda x, y: ((x - 0.13) / 0.31, y), r"span \[-0\.41.*undo that, and let the model normalise"),
        (lambda x, y: ((x * 255).int(), y), r"got int32: divide them"),
        (lambda x, y: (x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1), y), r"\(N, C, H, W\).*permute\(0, 3, 1, 2\)"),
        (lambda x, y: (x / 0, y), "some pixels are NaN or infinite"),
        (lambda x, y: (x, y * 0 + 10), "Labels must lie in 0 to 9 for a model of 10 classes, got 10"),
        (lambda x, y: (x, y * 0 - 1), "Labels must be >= 0, got -1"),
        (lambda x, y: (x, y[:3]), r"shape \(6,\), one class number an image, got \(3,\)"),
        (lambda x, y: (x, F.one_hot(y, 10) * 2), r"got \(6, 10\)"),
        (lambda x, y: (x, y + 0.5), "whole numbers"),
    ],
)
def test_images_and_labels_without_a_plain_meaning_are_one_sentence(trained, some, name, convert, message) -> None:
    with pytest.raises(GauntletError, match=message):
        run(name, trained, *convert(*some))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda logits: logits, "logits"),
        (lambda logits: logits.softmax(dim=1), "probabilities"),
        (lambda logits: logits.log_softmax(dim=1), "log-probabilities"),
        (lambda logits: logits.sigmoid(), "sigmoids"),
    ],
)
def test_outputs_that_are_no_logits_are_recognised_and_warned_of_once(trained, correct, change, kind) -> None:
    images, labels = correct[0][:20], correct[1][:20]
    with torch.no_grad():
        assert output_kind(change(trained(images))) == kind
    rng = PerImageRNG("k", torch.arange(20))
    with Victim(Changed(trained, after=change)) as victim, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            build_attack("fgsm").run(victim, images, labels, [0.1], rng=rng)
    said = [str(warning.message) for warning in seen if "seems to return" in str(warning.message)]
    assert len(said) == (kind in ("probabilities", "sigmoids"))
    assert all(kind in text for text in said)


@pytest.mark.parametrize("entry", [e for e in ATTACKS if e.has("rel_stepsize")], ids=lambda entry: entry.name)
def test_the_default_path_of_an_iterative_attack_is_four_epsilons_or_it_says_so(entry) -> None:
    defaults = entry.defaults()
    if entry.name.startswith("foolbox/"):
        path = defaults.get("steps", entry.defaults()["steps"]) * defaults["rel_stepsize"]
    else:
        norms = entry.meta.get("norms", (entry.meta["norm"],))
        made = [build_attack(entry, {"norm": norm}) for norm in norms]
        path = min(attack.steps * attack.rel_stepsize for attack in made)
    assert path >= PATH - 1e-6 or "weak" in entry.tags or "broken" in entry.tags


@pytest.mark.parametrize("steps", [1, 3, 10, 39, 40, 200])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_pgd_walks_four_epsilons_whatever_the_number_of_steps(steps, norm) -> None:
    made = build_attack("pgd", {"norm": norm, "steps": steps})
    assert made.steps * made.rel_stepsize >= PATH - 1e-6


def test_autoattack_fast_takes_explicit_values_as_they_are() -> None:
    made = build_attack("autoattack", {"version": "fast", "steps": 20, "queries": 300, "targets": 2})
    assert (made.steps, made.queries, made.targets) == (20, 300, 2)
    assert inspect.signature(type(made)).parameters["steps"].default is None
