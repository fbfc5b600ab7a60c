from __future__ import annotations

import pytest
import torch

from gauntlet import GauntletError, detector
from gauntlet.detectors import Detector, FunctionDetector, Outputs, build_detector, check_scores
from gauntlet.registry import DETECTORS, select_one

SHIPPED = {"msp", "max-logit", "energy", "entropy", "cross-entropy", "odin", "mahalanobis", "knn"}


@pytest.mark.usefixtures("plugin")
class TestUserDetectors:
    def test_a_decorated_function_is_a_complete_detector(self):
        @detector("neg-margin", needs="logits")
        def neg_margin(logits):
            """Negative gap between the two largest logits."""
            top = logits.topk(2).values
            return top[:, 1] - top[:, 0]

        entry = DETECTORS.get("neg-margin")
        assert entry.summary == "Negative gap between the two largest logits."
        built = build_detector(entry)
        assert not built.needs_fit
        outputs = Outputs(labels=torch.zeros(2), logits=torch.tensor([[1.0, 5.0, 2.0], [4.0, 4.0, 0.0]]))
        assert built.score(outputs).tolist() == [-3.0, 0.0]

    def test_leading_arguments_are_pulled_in_their_order(self):
        @detector("test-order", needs=("features", "output:extra", "logits", "head", "labels"))
        def order(z, extra, logits, head, y, *, scale: float = 1.0):
            return (z[:, 0] + 10 * extra + 100 * logits[:, 0] + y) * scale + head

        outputs = Outputs(
            labels=torch.tensor([3.0]),
            logits=torch.tensor([[2.0]]),
            features=torch.tensor([[4.0]]),
            named={"extra": torch.tensor([1.0])},
            head=torch.tensor(0.5),  # anything passes through
        )
        built = build_detector(DETECTORS.get("test-order"), {"scale": 2})
        assert built.score(outputs).tolist() == [(4 + 10 + 200 + 3) * 2 + 0.5]

    def test_a_function_of_images_sees_every_batch_with_the_matching_rows(self):
        sizes = []

        @detector("test-batches", needs=("images", "logits"))
        def batches(images, logits):
            sizes.append(len(images))
            return images.flatten(1).sum(1) * 100 + logits[:, 0]

        images = torch.arange(10.0).reshape(10, 1, 1, 1)
        outputs = Outputs(
            labels=torch.zeros(10), logits=torch.arange(10.0)[:, None], image_batches=lambda: iter(images.split(4))
        )
        assert build_detector(DETECTORS.get("test-batches")).score(outputs).tolist() == [101.0 * i for i in range(10)]
        assert sizes == [4, 4, 2]

    def test_a_function_of_images_and_model_keeps_no_graph_between_batches(self, net, test):
        @detector("test-graph")
        def graph(images, model):
            return model(images).amax(1)

        assert not build_detector(DETECTORS.get("test-graph")).score(test).requires_grad

    def test_a_class_that_defines_fit_must_be_fitted(self):
        class Plain(Detector):
            def score(self, outputs):
                return outputs.logits[:, 0]

        class FittedDetector(Plain):
            def fit(self, train, val, head):
                self.mean = train.logits.mean()

        class Child(FittedDetector):
            pass

        assert not Plain.needs_fit
        assert FittedDetector.needs_fit
        assert Child.needs_fit
        assert not Child.needs_val

    def test_a_class_that_is_no_detector_is_refused(self):
        @detector("test-stranger", needs="logits")
        class Stranger:
            pass

        with pytest.raises(GauntletError, match=r"'test-stranger' .* does not derive from gauntlet\.detectors\.Dete"):
            build_detector(DETECTORS.get("test-stranger"))

    def test_a_parameter_without_default_must_be_given(self):
        @detector("test-required", needs="logits")
        def required(logits, *, share: float):
            return logits[:, 0] * share

        with pytest.raises(GauntletError, match=r"'test-required' .* needs a value for its parameter 'share'"):
            build_detector(DETECTORS.get("test-required"))
        assert build_detector(DETECTORS.get("test-required"), {"share": 0.5}).parameters == {"share": 0.5}


def test_the_shipped_detectors_are_registered_with_their_facts():
    assert {entry.name for entry in DETECTORS} >= SHIPPED
    for name in SHIPPED:
        entry = DETECTORS.get(name)
        assert entry.summary
        assert "arXiv" in entry.reference
        assert entry.needs
        assert "post-hoc" in entry.tags


@pytest.mark.parametrize(("name", "expected"), [(name, name in ("mahalanobis", "knn")) for name in sorted(SHIPPED)])
def test_only_mahalanobis_and_knn_need_a_fit(name, expected):
    assert build_detector(DETECTORS.get(name)).needs_fit is expected


def test_a_selection_gives_parameters_and_the_label_of_messages():
    chosen = select_one(DETECTORS, {"name": "msp", "temperature": 1000, "label": "msp T=1000"})
    built = build_detector(chosen)
    assert isinstance(built, FunctionDetector)
    assert built.parameters == {"temperature": 1000.0}
    with pytest.raises(GauntletError, match=r"^Detector 'msp T=1000' needs 'logits', which these outputs do not have"):
        built.score(Outputs(labels=torch.zeros(3)))


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_missing_needs_are_named(name, train):
    built = build_detector(DETECTORS.get(name))
    if built.needs_fit:
        built.fit(train, None, None)
    with pytest.raises(GauntletError, match=rf"Detector '{name}' needs '{built.needs[0]}'"):
        built.score(Outputs(labels=torch.zeros(3)))


@pytest.mark.parametrize("name", ["mahalanobis", "knn"])
def test_scoring_before_fitting_is_one_sentence(name, test):
    with pytest.raises(GauntletError, match=f"Detector '{name}' must be fitted"):
        build_detector(DETECTORS.get(name)).score(test)


def test_unknown_parameters_name_the_nearest():
    with pytest.raises(GauntletError, match="temperature"):
        build_detector(DETECTORS.get("msp"), {"temprature": 2})


class TestCheckScores:
    def test_good_scores_come_back_in_float64_without_graph(self):
        checked = check_scores(torch.tensor([1.5, -2.0], requires_grad=True), 2, "mine")
        assert checked.dtype is torch.float64
        assert not checked.requires_grad
        assert checked.tolist() == [1.5, -2.0]

    @pytest.mark.parametrize("shape", [(3,), (4, 1), (), (2, 2)])
    def test_a_wrong_shape_is_named(self, shape):
        with pytest.raises(GauntletError, match=r"Detector 'mine' gave scores of shape .*the 4 images"):
            check_scores(torch.zeros(shape), 4, "mine")

    def test_scores_that_are_not_finite_are_counted(self):
        scores = torch.tensor([0.0, torch.nan, torch.inf, -torch.inf, 1.0])
        with pytest.raises(GauntletError, match=r"^Detector 'mine' gave 3 of 5 scores that are not finite"):
            check_scores(scores, 5, "mine")
