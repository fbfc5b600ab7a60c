"""Autoencoders in a suite: errors by set and under attack, the leaderboard they share, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gauntlet.bench.runner import prepare, run_suite
from gauntlet.datasets import DataSource, resolve
from gauntlet.models import CheckpointStore
from gauntlet.models.autoencoder import Autoencoder
from gauntlet.registry import GauntletError
from gauntlet.registry.folders import cache_folder
from gauntlet.results.examples import read_examples
from gauntlet.results.frame import load_results
from gauntlet.results.intervals import mean_interval
from gauntlet.results.plots import Material, draw
from gauntlet.results.store import Store
from gauntlet.results.tables import PRESETS

from .conftest import small_suite

AE = {"name": "autoencoder", "label": "AE", "width": 0.5, "recipe": {"autoencoder": {"epochs": 8, "batch_size": 32}}}
CNN = {"name": "cnn-small", "label": "CNN", "recipe": {"standard": {"epochs": 3}}}
LIMIT = {"limit": 300}


def ae_suite(**changes):
    return small_suite(
        **{
            "models": [AE, CNN],
            "evaluators": ["accuracy", "ood", "attack", "reconstruction"],
            "attacks": ["fgsm", {"name": "fgsm", "label": "detached", "detach_target": True}, "deepfool"],
            "epsilons": [0, 0.05],
            "attack_images": 1000,
            "detectors": ["reconstruction", "max-logit", {"msp": {"temperature": 1000}}],
            "ood": {"far": [{"uniform-noise": LIMIT}], "smooth": [{"plain": LIMIT}, {"low-contrast": LIMIT}]},
            "examples": 3,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which several tests read."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GAUNTLET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    folder = tmp_path_factory.mktemp("autoencoder")
    outcome = run_suite(ae_suite(attacks=ae_suite()["attacks"][:2]), out=folder)
    patch.undo()
    assert outcome.complete, outcome.counts
    return folder


@pytest.fixture(scope="module")
def frame(out: Path) -> pd.DataFrame:
    return load_results(out)


def one(frame: pd.DataFrame, metric: str, **where) -> pd.Series:
    where = {"class": "", **where}
    rows = frame[frame["metric"] == metric]
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def trained_network() -> Autoencoder:
    """The autoencoder of the run, read from the cache without the runner."""
    row = next(job.row for job in prepare(ae_suite())[0].jobs if job.row.model.label == "AE")
    network = Autoencoder(channels=1, width=0.5)
    CheckpointStore(cache_folder() / "models").load(row.key, network)
    return network.eval()


class TestErrors:
    def test_noise_is_told_from_digits_and_plain_images_less_surely(self, frame: pd.DataFrame):
        auroc = {
            name: one(frame, "auroc", model="AE", detector="reconstruction", ood_dataset=f"{name} limit=300")["value"]
            for name in ("uniform-noise", "plain")
        }
        assert auroc["uniform-noise"] > 0.99
        assert auroc["plain"] < 0.99

    def test_the_clean_cell_holds_the_mean_its_interval_and_each_class(self, frame: pd.DataFrame, out: Path):
        cell = one(frame, "reconstruction_mse", evaluator="reconstruction", attack="", ood_dataset="")
        test = resolve("digits", DataSource(root=Path("absent"), cache=cache_folder())).load("test")
        with torch.no_grad():
            made = trained_network()(test.images)
        errors = (made - test.images).square().flatten(1).mean(1).double().numpy()
        assert cell["value"] == pytest.approx(errors.mean(), rel=1e-5)
        assert cell["value"] < 0.2 * float(test.images.square().mean())  # the error of a black image
        assert (cell["ci_low"], cell["ci_high"]) == pytest.approx(mean_interval(errors), rel=1e-4)
        classes = frame[(frame["key"] == cell["key"]) & (frame["class"] != "")]
        assert len(classes) == 10
        assert np.average(classes["value"], weights=classes["n"].astype(float)) == pytest.approx(cell["value"])

    def test_an_ood_set_has_its_own_mean(self, frame: pd.DataFrame):
        cell = one(frame, "reconstruction_mse", evaluator="reconstruction", ood_dataset="uniform-noise limit=300")
        assert cell["value"] > 0.05
        assert cell["ood_group"] == "far"


class TestUnderAttack:
    def test_at_epsilon_zero_the_error_is_the_clean_one(self, frame: pd.DataFrame):
        clean = one(frame, "reconstruction_mse", evaluator="reconstruction", attack="", ood_dataset="")
        for metric in ("reconstruction_mse", "reconstruction_mse_input"):
            found = one(frame, metric, evaluator="reconstruction", attack="fgsm", epsilon=0)
            assert found["value"] == pytest.approx(clean["value"], rel=1e-5)
            assert found["n"] == clean["n"]

    def test_fgsm_is_a_signed_step_of_autograds_gradient(self, frame: pd.DataFrame, out: Path):
        test = resolve("digits", DataSource(root=Path("absent"), cache=cache_folder())).load("test")
        network, clean = trained_network(), test.images
        for label, detach in (("fgsm", False), ("detached", True)):
            x = clean.clone().requires_grad_()
            loss = (network(x) - (x.detach() if detach else x)).square().flatten(1).mean(1).sum()
            attacked = (clean + 0.05 * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)
            with torch.no_grad():
                expected = float((network(attacked) - clean).square().mean())
            cell = one(frame, "reconstruction_mse", model="AE", attack=label, epsilon=0.05)
            assert cell["value"] == pytest.approx(expected, rel=0.01)  # signs of gradients near zero may differ

    def test_the_error_grows_with_epsilon_and_detaching_the_target_makes_a_difference(self, frame: pd.DataFrame):
        values = {
            (label, epsilon): one(frame, "reconstruction_mse", model="AE", attack=label, epsilon=epsilon)["value"]
            for label in ("fgsm", "detached")
            for epsilon in (0, 0.05)
        }
        assert values["fgsm", 0.05] > values["fgsm", 0]
        assert values["detached", 0.05] > values["detached", 0]
        assert values["fgsm", 0.05] != values["detached", 0.05]

    def test_arrays_and_examples_are_kept(self, frame: pd.DataFrame, out: Path):
        cell = one(frame, "reconstruction_mse", model="AE", attack="fgsm", epsilon=0.05)
        with Store.open(out / "store.sqlite") as store:
            arrays = store.arrays(cell["key"])
        assert arrays["error"].mean() == pytest.approx(cell["value"], rel=1e-5)
        assert arrays["norm"].max() == pytest.approx(0.05, abs=1e-6)
        kept = read_examples(out, ("AE", "digits"), cell["key"])
        assert {name: len(array) for name, array in kept.items()} == dict.fromkeys(
            ("clean", "clean_reconstruction", "adversarial", "reconstruction"), 3
        )


class TestLeaderboard:
    def test_autoencoder_and_classifier_stand_in_one_ood_table(self, frame: pd.DataFrame):
        (table,) = PRESETS["ood"](frame)
        cells = dict(zip(table.rows, table.cells, strict=True))
        # The reconstruction score of a classifier is left out of the plan.
        assert set(cells) == {("AE", "reconstruction"), ("CNN", "max-logit"), ("CNN", "msp temperature=1000")}
        assert all("±" in text for row in cells.values() for text in row)

    def test_the_preset_shows_clean_and_attacked_errors_and_those_of_sets(self, frame: pd.DataFrame):
        attacked, sets = PRESETS["reconstruction"](frame)
        assert attacked.rows[0] == ("(clean)", "")
        assert attacked.columns == sets.columns == (("AE",),)
        assert sets.rows[0] == ("digits (ID)",)
        assert len(sets.rows) == 4

    @pytest.mark.parametrize("kind", ["reconstruction-epsilon", "history", "roc"])
    def test_its_plots_are_drawn(self, frame: pd.DataFrame, out: Path, kind: str):
        with Store.open(out, create=False) as store:
            chosen = frame[(frame["detector"] == "") | (frame["ood_dataset"] == "uniform-noise limit=300")]
            assert draw(kind, Material(chosen, store)).axes

    def test_pictures_show_input_reconstruction_and_difference(self, frame: pd.DataFrame, out: Path):
        with Store.open(out, create=False) as store:
            rows = frame[(frame["attack"] == "fgsm") & (frame["epsilon"] == 0.05)]
            figure = draw("reconstructions", Material(rows, store))
        titles = [axes.get_title() for axes in figure.axes]
        assert len(titles) == 9
        assert "→" in titles[0]
        named = [text for axes in figure.axes if (text := axes.get_ylabel())]
        assert named == ["ε 0.05\ninput", "reconstruction", "difference"]


class TestPlan:
    def test_what_cannot_fit_is_left_out_with_one_sentence_each(self):
        plan, _ = prepare(ae_suite())
        left_out = {item.what: item.reason for item in plan.left_out}
        assert left_out["deepfool of AE on digits"] == (
            "deepfool needs classes, and AE is attacked by its reconstruction error"
        )
        assert "detach_target" in left_out["detached of CNN on digits"]
        assert left_out["reconstruction of CNN on digits"] == "it needs reconstruction, and CNN yields logits"
        jobs = {(job.evaluator, job.row.model.label, job.label) for job in plan.jobs}
        assert ("reconstruction", "AE", "deepfool") not in jobs
        assert ("attack", "CNN", "deepfool") in jobs
        assert ("attack", "CNN", "detached") not in jobs

    @pytest.mark.parametrize(
        ("attack", "words"),
        [
            ({"name": "pgd", "loss": "dlr"}, "pgd with the dlr loss needs classes"),
            ({"name": "pgd", "epsilons": ["minimal"]}, "the epsilon `minimal` needs classes"),
            ("apgd-dlr", "apgd-dlr needs classes"),
            ("foolbox/linf/pgd", "foolbox/linf/pgd needs classes"),
        ],
    )
    def test_a_loss_or_budget_of_classes_is_left_out_too(self, attack, words: str):
        plan, _ = prepare(ae_suite(models=[AE], attacks=["fgsm", attack]))
        assert any(words in item.reason for item in plan.left_out)

    @pytest.mark.parametrize("recipe", ["outlier-exposure", ["autoencoder", "outlier-exposure"]])
    def test_a_recipe_for_classifiers_is_one_sentence(self, recipe):
        words = "Recipe 'outlier-exposure' trains models that yield logits, but model 'AE' yields reconstruction"
        with pytest.raises(GauntletError, match=words):
            prepare(ae_suite(models=[{"name": "autoencoder", "label": "AE", "recipe": recipe}]))

    def test_a_classifier_cannot_take_an_autoencoders_recipe(self):
        with pytest.raises(GauntletError, match="'autoencoder' trains models that yield reconstruction, but model"):
            prepare(ae_suite(models=[{"name": "cnn-small", "recipe": "autoencoder"}]))

    def test_a_calibrator_needs_logits(self):
        with pytest.raises(GauntletError, match="needs logits, but model"):
            prepare(ae_suite(models=[{**AE, "calibrator": "temperature"}]))

    @pytest.mark.parametrize("profile", [None, "real", "full"])
    def test_the_suite_of_report_r1_is_planned_in_every_profile(self, profile: str | None, tmp_path: Path):
        plan, _ = prepare("r1-autoencoder", profile=profile, data=tmp_path)
        assert {"reconstruction", "ood", "attack", "accuracy"} == {job.evaluator for job in plan.jobs}


class TestFailures:
    def test_errors_that_are_not_numbers_fail_the_cell_in_one_sentence(self, write_plugin, tmp_path: Path):
        plugin = write_plugin(
            """
            import torch
            from gauntlet.registry import model

            @model("broken-ae", outputs=("reconstruction", "reconstruction_error"), recipe="none", trained=True)
            class Broken(torch.nn.Module):
                "Reconstructs nothing."
                def forward(self, x):
                    return x
                def forward_outputs(self, x):
                    lost = x * float("nan")
                    return {"reconstruction": lost, "reconstruction_error": lost.flatten(1).mean(1)}
            """
        )
        suite = small_suite(
            models=["broken-ae"],
            evaluators=["reconstruction"],
            attacks=["fgsm"],
            epsilons=[0.1],
            detectors=None,
            ood=None,
        )
        run_suite(suite, out=tmp_path / "out", plugins=[plugin])
        frame = load_results(tmp_path / "out")
        assert set(frame["status"]) == {"failed"}
        assert frame["reason"].str.contains("not finite").all()


def test_a_training_without_accuracy_is_reported_on_the_console():
    from rich.console import Console

    from gauntlet.bench.console import ConsoleReporter

    console = Console(record=True, width=120)
    with ConsoleReporter(console) as reporter:
        reporter.training("AE", 10, 10, {"epoch": 1, "loss": torch.tensor(0.0123)})
    assert "trained AE: epoch 1, loss 0.0123" in console.export_text()
