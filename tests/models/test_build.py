"""From an entry to a module that fits the data, or one sentence that says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from gauntlet.models import create_module
from gauntlet.models.build import check_fit
from gauntlet.registry import MODELS, Entry, GauntletError, model
from gauntlet.registry.registry import current_plugin


@pytest.fixture(autouse=True)
def _forget_models() -> Iterator[None]:
    MODELS.discover()
    token = current_plugin.set("of a test")
    yield
    current_plugin.reset(token)
    MODELS.remove_plugin("of a test")


def build(factory: Callable[..., object], **parameters) -> nn.Module:
    model("mine")(factory)
    return create_module(MODELS.get("mine"), parameters, classes=7, shape=(3, 5, 6))


def test_classes_channels_and_shape_come_from_the_data_where_the_model_takes_them():
    seen = {}

    def mine(classes: int, channels: int, shape: tuple[int, int, int], *, depth: int = 2):
        seen.update(classes=classes, channels=channels, shape=shape, depth=depth)
        return nn.Identity()

    build(mine)
    assert seen == {"classes": 7, "channels": 3, "shape": (3, 5, 6), "depth": 2}


def test_what_the_suite_says_wins():
    seen = {}

    def mine(classes: int = 10, depth: int = 2):
        seen.update(classes=classes, depth=depth)
        return nn.Identity()

    build(mine, classes=4, depth=9)
    assert seen == {"classes": 4, "depth": 9}


def test_a_model_that_takes_nothing_gets_nothing():
    assert isinstance(build(lambda: nn.Identity()), nn.Identity)


def test_members_fill_the_parameter_that_the_entry_names():
    members = [nn.Linear(2, 2), nn.Linear(2, 2)]
    net = create_module(MODELS.get("ensemble"), {"combine": "vote"}, classes=2, shape=(1, 1, 2), members=members)
    assert list(net.members) == members


def test_what_is_no_module_is_refused():
    with pytest.raises(GauntletError, match=r"'mine' \(test_build.py:\d+\) must return a torch.nn.Module, got Tensor"):
        build(lambda classes: torch.zeros(classes))


def test_a_parameter_without_default_must_be_given():
    def mine(depth: int):
        return nn.Identity()

    with pytest.raises(GauntletError, match=r"'mine' \(test_build.py:\d+\) needs a value for its parameter 'depth'"):
        build(mine)


def test_a_model_that_refuses_its_parameters_says_so():
    with pytest.raises(
        GauntletError, match=r"^Model 'cnn-small' \(cnn_small.py:\d+\) cannot be built: dropout prob.*$"
    ):
        create_module(MODELS.get("cnn-small"), {"dropout": 2.0}, classes=10, shape=(1, 28, 28))


# -- does it fit? ---------------------------------------------------------------------------------------------


class Answer(nn.Module):
    def __init__(self, answer: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.answer = answer
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> object:
        self.modes.append(self.training)
        return self.answer(x)


def check(module: nn.Module, shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10) -> None:
    check_fit(module, "mine", "eights", shape, classes)


def test_a_module_that_fits_passes_and_keeps_its_mode_and_statistics(make_net):
    net = make_net(norm=True).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    check(net)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    check(net.eval())
    assert not net.training


def test_it_is_tried_in_eval_mode():
    module = Answer(lambda x: torch.zeros(len(x), 10)).train()
    check(module)
    assert (module.modes, module.training) == ([False], True)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda x: torch.zeros(len(x)), r"\(2,\)"),
        (lambda x: torch.zeros(len(x), 10, 1, 1), r"\(2, 10, 1, 1\)"),
        (lambda x: (torch.zeros(len(x), 10), None), "tuple"),
        (lambda x: {"logits": torch.zeros(len(x), 10)}, "dict"),
    ],
)
def test_logits_are_one_row_an_image(answer, got: str):
    with pytest.raises(GauntletError, match=rf"^Model 'mine' must return logits of shape \(N, classes\), got {got}\.$"):
        check(Answer(answer))


def test_the_number_of_logits_is_the_number_of_classes(make_net):
    with pytest.raises(
        GauntletError, match=r"^Model 'mine' gives 10 logits but dataset 'eights' has 4 classes; set the model's number"
    ):
        check(make_net(), classes=4)


@pytest.mark.parametrize("name", ["cnn-small", "m3", "m5", "m7"])
@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 32, 32), (3, 32, 32), (1, 8, 8)])
def test_images_of_another_shape_are_refused_by_the_builtins(name: str, shape: tuple[int, int, int]):
    size = "x".join(map(str, shape))
    with pytest.raises(GauntletError, match=f"^Model 'mine' does not take the {size} images of dataset 'eights': .+$"):
        check(MODELS.create(name), shape)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, TypeError, IndexError])
def test_whatever_a_model_raises_on_images_is_told_in_one_line(error: type[Exception]):
    def fail(_):
        raise error("first line.\nsecond line")

    module = Answer(fail).train()
    with pytest.raises(GauntletError, match=r"does not take the 1x8x8 images of dataset 'eights': first line\.$"):
        check(module)
    assert module.training


def test_running_out_of_memory_is_not_a_misfit():
    def fail(_):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        check(Answer(fail))


def test_every_builtin_fits_the_shape_that_it_declares():
    for entry in MODELS:
        if entry.plugin is None and not entry.meta.get("children"):
            shape = entry.meta.get("shape") or (3, 32, 32)
            module = create_module(entry, {}, classes=10, shape=shape)
            check_fit(module, entry.name, "a dataset", shape, 10, entry.meta.get("outputs", ("logits",)))


def test_an_entry_is_enough():
    """The registry is not asked: a suite may hold entries from anywhere."""
    entry = Entry("model", "x", lambda: nn.Identity())
    assert isinstance(create_module(entry, {}, classes=1, shape=(1, 1, 1)), nn.Identity)


FACTORIES = {
    "classes": lambda classes=10: nn.Linear(4, classes),
    "num-classes": lambda num_classes=10: nn.Linear(4, num_classes),
    "required": lambda num_classes: nn.Linear(4, num_classes),
    "keywords": lambda **kwargs: nn.Linear(4, kwargs.get("num_classes", 10)),
    "beside-others": lambda classes=10, **kwargs: nn.Linear(4, classes),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_the_number_of_classes_comes_under_either_name_and_among_any_keywords(name: str):
    model(f"own-{name}")(FACTORIES[name])
    assert create_module(MODELS.get(f"own-{name}"), {}, classes=3, shape=(1, 2, 2)).out_features == 3


def test_a_model_that_takes_any_keyword_is_given_what_the_suite_says():
    model("own-open")(FACTORIES["keywords"])
    from gauntlet.registry import select_one

    chosen = select_one(MODELS, {"name": "own-open", "num_classes": 5, "drop_rate": 0.1}, options=("recipe",))
    assert chosen.parameters == {"num_classes": 5, "drop_rate": 0.1}
    assert create_module(chosen.entry, chosen.parameters, classes=3, shape=(1, 2, 2)).out_features == 5


def test_no_builtin_takes_any_keyword():
    from gauntlet.registry import REGISTRIES

    assert [entry.name for registry in REGISTRIES.values() for entry in registry if entry.open] == []
