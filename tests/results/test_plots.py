"""Every kind of plot draws from a store alone, and shows the numbers that are in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_curve

from gauntlet.registry import GauntletError
from gauntlet.results import Facts, Identity, PlannedCell, Store, load_results
from gauntlet.results import curves as maths
from gauntlet.results.examples import read_examples, write_examples
from gauntlet.results.plots import PLOTS, Material, draw, kinds, plot, save
from gauntlet.results.plots.jacobians import contrast
from gauntlet.results.records import CellResult

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 3, 60)
LOGITS = RNG.normal(size=(60, 3)) + 2 * np.eye(3)[LABEL]
RIGHT = LOGITS.argmax(1) == LABEL
CONFIDENCE = (np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)).max(1)
INSIDE, OUTSIDE = RNG.normal(size=60), RNG.normal(1, 1, 40)
JACOBIAN = RNG.normal(size=(3, 1, 8, 8)).astype("float32")


def planned(params: Any = None, **identity: Any) -> PlannedCell:
    identity = {"model": "cnn", "dataset": "digits", **identity}
    return PlannedCell(Identity(**identity), repr(sorted(identity.items())), Facts(), params or {})


def cells(make: SimpleNamespace) -> Iterator[tuple[PlannedCell, CellResult]]:
    arrays = {
        "label": LABEL, "prediction": LOGITS.argmax(1), "success": RIGHT, "confidence": CONFIDENCE,
        "classes": np.array(["a", "<b>", "$c$"]),
    }  # fmt: skip
    value = float(RIGHT.mean())
    examples = {"image": RNG.random((6, 1, 8, 8), "float32"), "label": LABEL[:6], "logits": LOGITS[:6]}
    examples |= {"jacobian": JACOBIAN, "jacobian_image": examples["image"][:3], "jacobian_label": LABEL[:3]}
    yield (
        planned(evaluator="accuracy"),
        CellResult(measurements=(make.measured("accuracy", value),), arrays=arrays, examples=examples),
    )
    arrays = {"confidence": CONFIDENCE, "correct": RIGHT, "confidence_scaled": CONFIDENCE**2}
    yield planned(evaluator="calibration"), CellResult(measurements=(make.measured("ece", 0.1),), arrays=arrays)
    scores = {"id_score": INSIDE, "ood_score": OUTSIDE, "id_label": LABEL}
    for temperature in (1, 1000):
        for epsilon in (0.0, 0.02):
            where = {"evaluator": "ood", "detector": f"odin {temperature} {epsilon}", "ood_dataset": "letters"}
            params = {"detector": {"name": "odin", "temperature": temperature, "epsilon": epsilon}}
            yield planned(params, **where), CellResult(measurements=(make.measured("auroc", 0.8),), arrays=scores)
    for attack in ("fgsm", "pgd"):
        for epsilon in (0.1, 0.3):
            images = RNG.random((2, 1, 8, 8), "float32")
            kept = {"clean": images, "adversarial": images**2, "label": LABEL[:2], "prediction": LABEL[2:4]}
            chosen = np.arange(0, 60, 2)
            attacked = {
                "index": chosen,
                "attacked": RIGHT[chosen],
                "prediction": RNG.integers(0, 3, RIGHT[chosen].sum()),
            }
            result = CellResult(measurements=(make.measured("robust_accuracy", 0.5),), arrays=attacked, examples=kept)
            yield planned(evaluator="attack", attack=attack, epsilon=epsilon), result
    certainty = {"score": RNG.normal(size=60), "loss": (~RIGHT).astype("float32")}
    result = CellResult(measurements=(make.measured("aurc", 0.1),), arrays=certainty)
    yield planned(evaluator="misclassification", detector="msp"), result
    probabilities = RNG.dirichlet(np.ones(4), 80)
    top = np.sort(probabilities, axis=1)
    decided = {
        "label": np.r_[LABEL, np.full(20, -1)], "prediction": np.r_[LOGITS.argmax(1), np.arange(-1, 3).repeat(5)],
        "score": RNG.normal(size=80), "classes": np.array(["a", "<b>", "$c$", "letters (OOD)"]),
        "probabilities": probabilities, "max_2_max": top[:, -1] - top[:, -2], "h": RNG.random(80),
    }  # fmt: skip
    yield (
        planned(evaluator="open-set", detector="euinet", ood_dataset="letters"),
        CellResult(
            measurements=(make.measured("open_accuracy", 0.5),),
            arrays=decided,
            examples={"generated": RNG.random((10, 1, 8, 8), "float32")},
        ),
    )
    for attack, epsilon in (("", None), ("fgsm", 0.1), ("fgsm", 0.3)):
        images = {"reconstruction": RNG.random((2, 1, 8, 8), "float32"), "image": RNG.random((2, 1, 8, 8), "float32")}
        attacked = {"clean": images["image"], "adversarial": images["image"], "clean_reconstruction": images["image"]}
        where = {"evaluator": "reconstruction", "attack": attack, "epsilon": epsilon}
        result = CellResult(
            measurements=(make.measured("reconstruction_mse", 0.02),),
            examples={**images, **(attacked if attack else {})},
        )
        yield planned(**where), result
    where = np.arange(60) % 3
    arrays = {
        "map": RNG.normal(size=(60, 8)) + where[:, None],
        "map_label": where,
        "classes": np.array(["a", "b", "c"]),
    }
    kept = {
        "query": RNG.random((3, 1, 8, 8), "float32"), "query_label": LABEL[:3],
        "neighbour": RNG.random((3, 5, 1, 8, 8), "float32"), "neighbour_label": LABEL[:15].reshape(3, 5),
        "similarity": np.linspace(1, 0, 15, dtype="float32").reshape(3, 5),
    }  # fmt: skip
    result = CellResult(measurements=(make.measured("probe_accuracy", 0.9),), arrays=arrays, examples=kept)
    yield planned(evaluator="representation"), result
    for severity in (1, 2):
        where = {"evaluator": "corruption", "corruption": "fog", "severity": severity}
        yield planned(**where), CellResult(measurements=(make.measured("accuracy", 0.9 / severity),))


@pytest.fixture
def material(tmp_path: Path, make: SimpleNamespace) -> Iterator[Material]:
    with Store.open(tmp_path / "out" / "store.sqlite") as store:
        filled = list(cells(make))
        make.fill(store, filled)
        for cell, result in filled:
            if result.examples:
                write_examples(store.path.parent, ("cnn", "digits"), cell.key, result.examples)
        history = [
            {"epoch": epoch, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.4, "test_accuracy": 0.3}
            for epoch in (1, 2)
        ]
        store.put_history("training key", "cnn", history)
        yield Material(load_results(store.path), store)


@pytest.mark.parametrize("name", sorted(kinds()))
def test_every_kind_draws_and_repeats_byte_for_byte(name: str, material: Material, tmp_path: Path) -> None:
    svg = [save(draw(name, material), tmp_path / f"{i}.svg").read_bytes() for i in range(2)]
    assert svg[0] == svg[1]
    assert len(svg[0]) > 3000
    assert save(draw(name, material), tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(set(kinds()) - {"history"}))
def test_a_store_without_what_a_plot_needs_is_one_sentence(name: str, make: SimpleNamespace, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.sqlite") as store:
        make.fill(store, [make.broken("failed", "it broke", evaluator="accuracy")])
        with pytest.raises(GauntletError, match=r"nothing of the|No \w+ cell|kept no image"):
            draw(name, Material(load_results(store.path), store))


def test_the_history_has_a_line_for_each_split_that_was_watched(material: Material) -> None:
    losses, accuracies = (
        {line.get_gid(): list(line.get_ydata()) for line in axes.lines if line.get_gid()}
        for axes in draw("history", material).axes
    )
    assert losses == {"cnn train": [1.0, 1.0], "cnn validation": [1.1, 1.1]}
    assert accuracies == {"cnn train": [50, 50], "cnn validation": [40, 40], "cnn test": [30, 30]}


def test_the_roc_plot_shows_the_curve_of_scikit_learn(material: Material) -> None:
    axes = draw("roc", material).axes[0]
    x, y = axes.lines[0].get_data()
    flagged, caught, _ = roc_curve([0] * 60 + [1] * 40, np.r_[INSIDE, OUTSIDE], drop_intermediate=False)
    np.testing.assert_allclose((x, y), (flagged, caught), atol=1e-12)


def test_average_precision_is_the_area_under_our_precision_recall_curve() -> None:
    recall, precision = maths.pr_curve(INSIDE, OUTSIDE)
    area = float(np.sum(np.diff(recall, prepend=0) * precision))
    assert area == pytest.approx(average_precision_score([0] * 60 + [1] * 40, np.r_[INSIDE, OUTSIDE]), abs=1e-12)


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    expected = confusion_matrix(LABEL, LOGITS.argmax(1))
    np.testing.assert_array_equal(maths.confusion(LABEL, LOGITS.argmax(1), 3), expected)


def test_the_confusion_under_attack_counts_images_that_are_wrong_without_it(material: Material) -> None:
    ((_, clean),) = material.cells("accuracy", "label", "prediction", "classes")
    attacked = next(arrays for _, arrays in material.cells("attack", "index", "attacked", "prediction"))
    fooled = dict(zip(attacked["index"][attacked["attacked"]], attacked["prediction"], strict=True))
    pairs = [(clean["label"][i], fooled.get(i, clean["prediction"][i])) for i in attacked["index"]]
    counts = confusion_matrix(*zip(*pairs, strict=True))
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    attacks = material.frame[material.frame["evaluator"] == "attack"]
    for selected in (material, Material(attacks, material.store)):  # the accuracy cell may be left out
        axes = draw("attacked-confusion", selected).axes[0]
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), shares)


def test_the_open_set_confusion_has_ood_as_its_last_class(material: Material) -> None:
    ((_, arrays),) = material.cells("open-set", "label", "prediction")
    label, prediction = (np.where(arrays[name] < 0, 3, arrays[name]) for name in ("label", "prediction"))
    counts = confusion_matrix(label, prediction)
    axes = draw("open-set-confusion", material).axes[0]
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), shares)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "<b>", "$c$", "letters (OOD)"]


def test_scores_by_label_are_shown_with_their_medians(material: Material) -> None:
    ((_, arrays),) = material.cells("open-set", "label", "h")
    drawn = draw("open-set-scores", material)
    panel = next(axes for axes in drawn.axes if "h (1: fake)" in axes.get_ylabel())
    shown = [
        line.get_ydata()[0] for line in panel.lines if line.get_color() == "black" and len(set(line.get_ydata())) == 1
    ]
    expected = [np.median(arrays["h"][arrays["label"] == label]) for label in (0, 1, 2, -1)]
    assert set(np.round(expected, 12)) <= set(np.round(shown, 12))


def test_equal_scores_make_one_step_of_the_roc_curve() -> None:
    x, y = maths.roc_curve(np.zeros(5), np.zeros(3))
    assert (x.tolist(), y.tolist()) == ([0, 1], [0, 1])


def test_risk_at_full_coverage_is_the_error_rate() -> None:
    coverage, risk = maths.risk_coverage(CONFIDENCE, RIGHT)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(1 - RIGHT.mean())


def test_an_unknown_kind_names_the_nearest(material: Material) -> None:
    with pytest.raises(GauntletError, match=r"no plot 'rocc'.*roc"):
        draw("rocc", material)


def test_another_suffix_is_refused(material: Material, tmp_path: Path) -> None:
    with pytest.raises(GauntletError, match=r"\.svg, \.png or \.pdf"):
        save(draw("confusion", material), tmp_path / "plot.gif")


def test_a_kind_is_added_by_one_decorated_function(material: Material) -> None:
    @plot("empty")
    def empty(material: Material) -> Any:
        """Nothing at all."""
        from matplotlib.figure import Figure

        return Figure()

    try:
        assert kinds()["empty"].summary == "Nothing at all."
        assert draw("empty", material).axes == []
    finally:
        del PLOTS["empty"]


def test_too_many_lines_are_refused_with_a_hint(make: SimpleNamespace, tmp_path: Path) -> None:
    arrays = {"id_score": INSIDE, "ood_score": OUTSIDE}
    with Store.open(tmp_path / "store.sqlite") as store:
        many = [planned(evaluator="ood", detector=f"d{i}", ood_dataset="x") for i in range(9)]
        make.fill(
            store, [(cell, CellResult(measurements=(make.measured("auroc", 0.5),), arrays=arrays)) for cell in many]
        )
        with pytest.raises(GauntletError, match=r"9 curves are too many .* --where"):
            draw("roc", Material(load_results(store.path), store))


def test_examples_come_back_whatever_the_labels_hold(tmp_path: Path, hostile: str) -> None:
    """Two labels that read the same in a file name stay apart, and rewriting a cell replaces its examples."""
    for value in (1.0, 2.0):
        write_examples(tmp_path, (hostile, "digits"), "key", {"image": np.full((1, 1, 2, 2), value, "float32")})
    write_examples(tmp_path, (f"{hostile} ", "digits"), "key", {"image": np.zeros((1, 1, 2, 2), "float32")})
    assert read_examples(tmp_path, (hostile, "digits"), "key")["image"].tolist() == [[[[2, 2], [2, 2]]]]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert read_examples(tmp_path, (hostile, "digits"), "other") == {}


def test_jacobians_are_grey_at_zero_and_keep_signs_at_any_scale(material: Material) -> None:
    grid = draw("jacobians", material)
    shown = [np.asarray(axes.images[0].get_array()) for axes in grid.axes if axes.images]
    assert len(shown) == 6
    for image, one in zip(shown[3:], JACOBIAN[:, 0], strict=True):
        np.testing.assert_array_equal(np.sign(image - 0.5), np.sign(one))
    np.testing.assert_allclose(contrast(1e-9 * JACOBIAN[0]), contrast(JACOBIAN[0]), atol=1e-6)
    assert (contrast(np.zeros((1, 2, 2))) == 0.5).all()


def test_a_history_without_accuracy_has_one_panel_and_beside_others_a_name_in_the_legend(
    material: Material, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "store.sqlite") as store:
        rows = [{"epoch": number, "loss": 1 / number, "val_loss": 1.1 / number} for number in (1, 2)]
        store.put_history("first", "autoencoder", rows)
        drawn = draw("history", Material(material.frame, store))
        assert [axes.get_title() for axes in drawn.axes] == ["Loss"]
        store.put_history("second", "cnn", [{**row, "accuracy": 0.5, "val_accuracy": 0.4} for row in rows])
        drawn = draw("history", Material(material.frame, store))
        assert [axes.get_title() for axes in drawn.axes] == ["Loss", "Accuracy"]
        names = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert names == ["autoencoder", "cnn", "train", "validation"]
