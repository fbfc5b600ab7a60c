"""The corruption evaluator: its figures against a direct computation, its means, what is left out, and its tables."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from gauntlet.bench.runner import prepare, run_suite
from gauntlet.datasets import DataSource, resolve
from gauntlet.datasets.corruptions import corrupted
from gauntlet.registry import CORRUPTIONS, MODELS, GauntletError
from gauntlet.results.formats import render
from gauntlet.results.frame import load_results
from gauntlet.results.presets import PRESETS
from gauntlet.results.store import Store

#: Classifies by the nearest class mean, which needs no training.
PLUGIN = textwrap.dedent(
    '''
    import torch
    from pathlib import Path
    from gauntlet import model
    from gauntlet.datasets import DataSource, resolve


    @model("templates", trained=True)
    class Templates(torch.nn.Module):
        """Nearest class mean."""

        def __init__(self, *, classes: int = 10, sharpness: float = 0.2) -> None:
            super().__init__()
            train = resolve("digits", DataSource(Path("/nonexistent"), Path("/nonexistent"))).load("train")
            means = [train.images[train.labels == label].mean(0) for label in range(classes)]
            self.register_buffer("means", torch.stack(means).flatten(1))
            self.sharpness = sharpness

        def forward(self, images):
            return -self.sharpness * torch.cdist(images.flatten(1), self.means).square()

    '''
)
DATASET = {"digits": {"limit": 250}}
SUITE = {
    "name": "corrupted",
    "datasets": [DATASET],
    "models": [
        {"name": "templates", "label": "sharp", "recipe": "none"},
        {"name": "templates", "label": "soft", "sharpness": 0.02, "recipe": "none"},
    ],
    "evaluators": ["accuracy", "calibration", "corruption"],
    "corruptions": ["fog", "frost", "mnist-c/stripe", "saturate"],
    "severities": [5, 1],
}


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "templates.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return str(path)


@pytest.fixture
def run(tmp_path, plugin):
    outcome = run_suite(SUITE, out=tmp_path, plugins=[plugin])
    frame = load_results(tmp_path)
    assert outcome.complete, frame[frame["status"] != "ok"][["corruption", "status", "reason"]]
    return tmp_path, frame


def row(frame, name, severity=None, metric="accuracy", model="sharp"):
    rows = frame[(frame["evaluator"] == "corruption") & (frame["corruption"] == name) & (frame["model"] == model)]
    rows = rows[rows["severity"].isna() if severity is None else rows["severity"] == severity]
    rows = rows[rows["metric"] == metric]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def test_figures_are_those_of_a_direct_computation(run):
    folder, frame = run
    module = MODELS.create("templates").eval()
    images = resolve(DATASET, DataSource(Path("/nonexistent"), Path("/nonexistent"))).load("test")
    clean = module(images.images).softmax(1).amax(1)
    for name, severity in (("fog", 5), ("frost", 1), ("mnist-c/stripe", 1)):
        changed = corrupted(images, CORRUPTIONS.get(name), severity)
        confidence, predictions = module(changed.images).softmax(1).max(1)
        right = predictions == changed.labels
        found = row(frame, name, severity)
        assert found["value"] == pytest.approx(float(right.double().mean()), abs=1e-12)
        assert found["ci_low"] < found["value"] < found["ci_high"]
        assert row(frame, name, severity, "mean_confidence")["value"] == pytest.approx(
            float(confidence.mean()), abs=1e-6
        )
        outlying = np.r_[np.zeros(len(clean)), np.ones(len(confidence))]
        auroc = roc_auc_score(outlying, -torch.cat([clean, confidence]).double().numpy())
        assert row(frame, name, severity, "auroc")["value"] == pytest.approx(auroc, abs=1e-4)  # float32 near-ties
        with Store.open(folder / "store.sqlite") as store:
            arrays = store.arrays(found["key"])
        assert (arrays["prediction"] == predictions.numpy()).all()
        assert (arrays["success"] == right.numpy()).all()


def test_each_corruption_counts_alike_in_the_mean_and_each_severity_in_its_own(run):
    folder, frame = run
    for metric in ("accuracy", "ece", "auroc"):
        means = [np.mean([row(frame, name, s, metric)["value"] for s in (1, 5)]) for name in ("fog", "frost")]
        assert row(frame, "fog", metric=metric)["value"] == pytest.approx(means[0])
        expected = np.mean([*means, row(frame, "mnist-c/stripe", 1, metric)["value"]])
        assert row(frame, "mean", metric=metric)["value"] == pytest.approx(expected)
    with Store.open(folder / "store.sqlite") as store:
        success = [store.arrays(row(frame, "fog", s)["key"])["success"] for s in (1, 5)]
    shares = np.mean(success, axis=0)
    half = 1.96 * shares.std(ddof=1) / np.sqrt(len(shares))
    whole = row(frame, "fog")
    assert whole["ci_high"] - whole["ci_low"] == pytest.approx(2 * half, rel=0.02)


def test_what_does_not_fit_is_left_out_with_its_reason(plugin):
    plan, _ = prepare(SUITE, plugins=[plugin])
    reasons = {item.what: item.reason for item in plan.left_out}
    assert reasons["saturate of sharp on digits limit=250"] == "it needs images of 3 channels, not 1"
    assert "saturate" not in {cell.identity.corruption for cell in plan.cells}


def test_severities_that_a_corruption_lacks_leave_it_out_with_the_reason(plugin, write_plugin):
    dim = write_plugin(
        '''
        from gauntlet import corruption

        @corruption("dim", severities=(2, 3))
        def dim(images, severity):
            """Darker."""
            return images / severity
        ''',
        "dim.py",
    )
    plan, _ = prepare(SUITE, plugins=[plugin, dim])
    reasons = {item.what: item.reason for item in plan.left_out}
    assert reasons["dim of sharp on digits limit=250"] == "it has the severities 2, 3, none of the suite's"


def test_two_models_share_the_corrupted_images(tmp_path, plugin, monkeypatch):
    from gauntlet.bench import device_images

    made = []
    monkeypatch.setattr(device_images, "corrupted", lambda *given: made.append(given[1].name) or corrupted(*given))
    assert run_suite({**SUITE, "corruptions": ["fog"]}, out=tmp_path, plugins=[plugin]).complete
    assert made == ["fog", "fog"]  # two severities, two models


def test_a_plug_ins_corruption_joins_and_only_it_and_the_means_are_computed(run, plugin, write_plugin):
    folder, frame = run
    dim = write_plugin(
        '''
        from gauntlet import corruption

        @corruption("dim", severities=(1, 2))
        def dim(images, severity):
            """Darker."""
            return images * (1 - severity / 4)
        ''',
        "dim.py",
    )
    assert run_suite({**SUITE, "severities": [1, 2, 5]}, out=folder, plugins=[plugin, dim]).complete
    later = load_results(folder)
    assert {1, 2} == set(later[later["corruption"] == "dim"]["severity"].dropna())
    levels = frame[frame["severity"].notna()].drop_duplicates("key").set_index("key")["created_at"]
    assert (later.drop_duplicates("key").set_index("key")["created_at"].reindex(levels.index) == levels).all()


def test_a_corruption_that_fails_costs_its_own_cells_and_the_mean(tmp_path, plugin, write_plugin):
    broken = write_plugin(
        '''
        from gauntlet import corruption

        @corruption("broken")
        def broken(images, severity):
            """Returns too few."""
            return images[:1] if severity == 2 else images
        ''',
        "broken.py",
    )
    suite = {**SUITE, "severities": [1, 2], "corruptions": ["mnist-c/stripe"], "models": SUITE["models"][:1]}
    outcome = run_suite(suite, out=tmp_path, plugins=[plugin, broken])
    assert not outcome.complete
    cells = load_results(tmp_path).drop_duplicates("key").set_index(["corruption", "severity"])
    assert cells.loc[("broken", 1), "status"] == "ok"
    assert cells.loc[("broken", 2), "status"] == "failed"
    assert "must return images of shape" in cells.loc[("broken", 2), "reason"]
    assert "1 of the 2 cells of this mean" in cells[cells.index.get_level_values(0) == "broken"]["reason"].to_list()[-1]


def test_the_table_has_clean_images_first_and_the_mean_last(run):
    _, frame = run
    accuracy, errors = PRESETS["corruptions"](frame)
    assert [header[0] for header in accuracy.rows] == ["(clean)", "fog", "frost", "mnist-c/stripe", "mean"]
    assert "frost is a stand-in for photographs" in render(accuracy, "github")
    ece, *rest = PRESETS["corruptions"](frame, metric="ece")
    assert len(ece.rows) == 5
    assert accuracy.title == "Accuracy on corrupted images of digits limit=250 (%)"
    assert rest == []
    assert [header[0] for header in errors.rows] == ["sharp", "soft"]


def test_mean_corruption_errors_are_those_of_the_paper(run):
    _, frame = run
    frame = frame.copy()
    clean = {"sharp": 0.9, "soft": 0.8}
    accuracy = {
        ("sharp", "fog"): (0.8, 0.6), ("sharp", "frost"): (0.7, 0.5), ("sharp", "mnist-c/stripe"): (0.5,),
        ("soft", "fog"): (0.7, 0.6), ("soft", "frost"): (0.4, 0.2), ("soft", "mnist-c/stripe"): (0.3,),
    }  # fmt: skip
    overall = (frame["metric"] == "accuracy") & (frame["class"] == "")
    for (model, name), values in accuracy.items():
        for severity, value in zip((1, 5), values, strict=False):
            cell = (frame["model"] == model) & (frame["corruption"] == name) & (frame["severity"] == severity)
            frame.loc[overall & cell, "value"] = value
    for model, value in clean.items():
        frame.loc[overall & (frame["model"] == model) & (frame["evaluator"] == "accuracy"), "value"] = value
    error = {key: [1 - value for value in values] for key, values in accuracy.items()}
    names = ("fog", "frost", "mnist-c/stripe")
    mce = np.mean([sum(error["soft", n]) / sum(error["sharp", n]) for n in names])
    added = {(m, n): np.mean(error[m, n]) - (1 - clean[m]) for m, n in error}
    relative = np.mean([added["soft", n] / added["sharp", n] for n in names])
    table = PRESETS["corruptions"](frame, decimals=4)[1]
    assert list(table.cells[1])[1:] == [f"{mce:.4f}", f"{relative:.4f}"]
    assert list(table.cells[0])[1:] == ["1.0000", "1.0000"]


def test_a_baseline_without_results_leaves_its_errors_out(run):
    """Of one corruption, or of everything; the other models are two, which could be compared."""
    _, frame = run
    third = frame[frame["model"] == "soft"].assign(model="third")
    frame = pd.concat([frame, third], ignore_index=True)
    assert ("mCE",) in PRESETS["corruptions"](frame)[1].columns
    sharp = (frame["model"] == "sharp") & (frame["evaluator"] == "corruption")
    for lost in (sharp & (frame["corruption"] == "fog"), sharp):
        accuracy, *errors = PRESETS["corruptions"](frame.assign(status=frame["status"].mask(lost, "failed")))
        assert len(accuracy.rows) == 5
        assert all(("mCE",) not in table.columns for table in errors)


def test_the_safety_table_has_the_mean_over_corruptions(run):
    _, frame = run
    (table,) = PRESETS["safety"](frame)
    column = [header[0] for header in table.columns].index("Accuracy under corruption, mean (%)")
    assert table.cells[0][column].startswith(f"{100 * row(frame, 'mean')['value']:.1f}")


def test_corrupted_images_may_be_shifted_ones_of_the_full_spectrum(tmp_path, plugin):
    suite = {
        **SUITE, "evaluators": ["ood"], "models": SUITE["models"][:1], "corruptions": None, "severities": None,
        "detectors": ["msp"], "ood": ["glyphs"], "shifted": [{"digits": {"limit": 250, "corrupt": {"fog": 5}}}],
    }  # fmt: skip
    assert run_suite({k: v for k, v in suite.items() if v is not None}, out=tmp_path, plugins=[plugin]).complete
    assert "glyphs (full-spectrum)" in set(load_results(tmp_path)["ood_dataset"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"corruptions": ["foggy"]}, "Unknown corruption 'foggy'.*fog"),
        ({"severities": [0]}, "'severities'.*greater than or equal to 1"),
        ({"corruptions": [{"fog": {"depth": 1}}]}, "depth"),
        ({"corruptions": None}, "the evaluator 'corruption' needs the key 'corruptions'"),
    ],
)
def test_bad_input_is_one_sentence(changes, problem, plugin):
    suite = {key: value for key, value in {**SUITE, **changes}.items() if value is not None}
    with pytest.raises(GauntletError, match=problem):
        prepare(suite, plugins=[plugin])
