"""The detector interface, and the adapter that turns a registered function into a detector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from ..registry import Component, Entry, GauntletError, Selected
from .moments import feature_mean
from .numerics import broken_rows, check_temperature, double
from .outputs import Head, Outputs

T = TypeVar("T")


class Detector(Component, ABC):
    """Scores images: the higher, the more out-of-distribution.

    Attributes:
        needs: What it reads of :class:`Outputs`, set from its registration.
        name: How messages call it: its label in the suite.
        needs_fit: Whether :meth:`fit` must run before :meth:`score`; true for every class that defines ``fit``.
        needs_val: Whether :meth:`fit` also reads validation outputs; a class that does says so.
        needs_outliers: Whether :meth:`fit_outliers` must run after it.
    """

    needs: tuple[str, ...] = ()
    name: str = "detector"
    needs_fit: ClassVar[bool] = False
    needs_val: ClassVar[bool] = False
    needs_outliers: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "needs_fit" not in cls.__dict__:
            cls.needs_fit = cls.fit is not Detector.fit

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Learn from in-distribution training outputs and, where there are any, validation outputs."""
        return

    def fit_outliers(self, inside: Outputs, outside: Outputs) -> None:
        """Learn from validation images and validation outliers, after :meth:`fit`."""
        return

    @abstractmethod
    def score(self, outputs: Outputs) -> Tensor:
        """One score per image, shape (N,)."""

    def predict(self, outputs: Outputs) -> Tensor | None:
        """The detector's own open-set prediction, shape (N,) int64: a known class, or -1 for OOD.

        None, as here, where it makes none: its scores then need a threshold, and the classes are the model's.
        """
        return None

    def probabilities(self, outputs: Outputs) -> Tensor | None:
        """Probabilities of the K known classes and, last, of OOD, shape (N, K + 1); None where it has none."""
        return None

    def pull(self, outputs: Outputs) -> list[Any]:
        """The values of all needs, in order.

        Raises:
            GauntletError: The outputs lack one of them.
        """
        values = [outputs.get(need) for need in self.needs]
        for need, value in zip(self.needs, values, strict=True):
            if value is None:
                raise self._lacks(need)
        return values

    def fitted(self, state: T | None) -> T:
        """``state``, which :meth:`fit` has set; an error where it has not.

        Raises:
            GauntletError: The detector is not fitted.
        """
        if state is None:
            raise GauntletError(f"Detector {self.name!r} must be fitted to training outputs before it can score.")
        return state

    def projected_features(self, outputs: Outputs, width: int | None = None) -> Tensor:
        """The (projected) features, shape (N, D).

        Args:
            outputs: Where they come from.
            width: The D that the detector was fitted to; None while it is being fitted, when the features must also
                be there and finite.

        Raises:
            GauntletError: They are missing, of another width, or (for a fit) empty or not finite.
        """
        features = outputs.projected_features
        if features is None:
            raise self._lacks("features")
        if width is None:
            self._check_training(outputs, features)
        elif features.shape[1] != width:
            raise GauntletError(
                f"Detector {self.name!r} was fitted to {width} features per image but got {features.shape[1]}: "
                "fit and score it on outputs of the same model."
            )
        return features

    def full_features(self, outputs: Outputs, *, fitting: bool = False) -> Tensor:
        """The unprojected features, shape (N, D), which the head applies to; checked where a detector is ``fitting``.

        Raises:
            GauntletError: They are missing or (for a fit) empty or not finite.
        """
        if outputs.features is None:
            raise self._lacks("features")
        if fitting:
            self._check_training(outputs, outputs.features)
        return outputs.features.detach() if fitting else outputs.features

    def validation(self, val: Outputs | None) -> Outputs:
        """``val``; an error where there is none.

        Raises:
            GauntletError: There are no validation images.
        """
        if val is None:
            raise GauntletError(
                f"Detector {self.name!r} is fitted to validation images, and there are none: "
                "use it on a dataset with a training split, of which a share is held out."
            )
        return val

    def with_class(self, outputs: Outputs) -> Outputs:
        """The images that have a class.

        Raises:
            GauntletError: There are none.
        """
        known = outputs.labels >= 0
        if not bool(known.any()):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted: no training image has a class label.")
        return (
            outputs
            if bool(known.all())
            else outputs.cached(("known", id(outputs.features)), lambda: outputs.subset(known))
        )

    def labelled(self, outputs: Outputs, need: str) -> tuple[Tensor, Tensor]:
        """One need and the labels (N,) of the images that have a class, to fit to; features are the projected ones.

        Raises:
            GauntletError: The outputs lack the need, or have no image with a class, or features that are not finite.
        """
        values = self.projected_features(outputs) if need == "features" else outputs.get(need)
        if values is None:
            raise self._lacks(need)
        known = self.with_class(outputs)
        chosen: Any = known.projected_features if need == "features" else known.get(need)
        return chosen.detach(), known.labels.to(values.device)

    def required(self, head: Head | None) -> Head:
        """``head``; an error where the model has none."""
        if head is None:
            raise self._lacks("head")
        return head

    def _check_training(self, outputs: Outputs, features: Tensor) -> None:
        if not len(features):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted to an empty training set.")
        if bool(feature_mean(outputs, features).isfinite().all()):  # which NaN and infinity come through
            return
        if bad := broken_rows(features):
            raise GauntletError(
                f"Detector {self.name!r} cannot be fitted: {bad} of {len(features)} training images have features "
                "that are not finite."
            )

    def _lacks(self, need: str) -> GauntletError:
        return GauntletError(
            f"Detector {self.name!r} needs {need!r}, which these outputs do not have: "
            "use it with a model that yields it."
        )


class FunctionDetector(Detector):
    """A detector made of a function whose leading arguments are its needs.

    Functions of cached outputs are called once; those that need ``images`` are called batch by batch, with the
    matching slice of their other needs.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        needs: Sequence[str],
        parameters: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.function = function
        self.needs = tuple(needs)
        self.parameters = dict(parameters or {})
        self.name = name or str(getattr(function, "__name__", self.name))

    def score(self, outputs: Outputs) -> Tensor:
        """The function's scores, shape (N,)."""
        values = self.pull(outputs)
        if "images" not in self.needs:
            return self.function(*values, **self.parameters)
        scores = list(self._by_batch(values))
        return torch.cat(scores) if scores else torch.zeros(0)

    def _by_batch(self, values: list[Any]) -> Iterator[Tensor]:
        position = self.needs.index("images")
        start = 0
        for images in values[position]():
            rows = slice(start, start + len(images))
            start = rows.stop
            batch = [_rows(need, value, rows) for need, value in zip(self.needs, values, strict=True)]
            batch[position] = images
            scores = self.function(*batch, **self.parameters)
            # Without this the graphs of all batches through the model's parameters would stay in memory.
            yield scores if images.requires_grad else scores.detach()


def _rows(need: str, value: Any, rows: slice) -> Any:
    return value if need in ("images", "head", "model", "tap") else value[rows]


def build_detector(chosen: Selected | Entry, parameters: Mapping[str, Any] | None = None) -> Detector:
    """Build the detector of a registry entry, or of an entry that a suite selected (with its label).

    Args:
        chosen: What to build; the parameters of a :class:`Selected` hold unless overridden.
        parameters: Hyper-parameters; checked against the entry's signature.

    Raises:
        GauntletError: A parameter is unknown, ill-typed or missing, or the class is no :class:`Detector`.
    """
    entry = chosen.entry if isinstance(chosen, Selected) else chosen
    label = chosen.label if isinstance(chosen, Selected) else chosen.name
    given = {**chosen.parameters, **(parameters or {})} if isinstance(chosen, Selected) else dict(parameters or {})
    checked = entry.check(given)
    absent = [known.name for known in entry.parameters if known.required and known.name not in checked]
    if absent:
        raise GauntletError(f"Detector {label!r} ({entry.where}) needs a value for its parameter {absent[0]!r}.")
    if not entry.is_class:
        if "temperature" in checked and entry.is_ours:
            check_temperature(checked["temperature"], label)
        return entry.signed(FunctionDetector(entry.factory, entry.needs, checked, label), checked)
    detector = entry.build(checked)
    if not isinstance(detector, Detector):
        raise GauntletError(
            f"Detector {label!r} ({entry.where}) is a class that does not derive from gauntlet.detectors.Detector: "
            "derive it, or register a function."
        )
    detector.needs, detector.name = Selected(entry, label, checked).needs, label
    return detector


def check_scores(scores: Tensor, n: int, label: str) -> Tensor:
    """Return a detector's scores in float64, shape (n,), detached.

    Raises:
        GauntletError: They are not one finite number per image.
    """
    scores = double(torch.as_tensor(scores).detach())
    if scores.shape != (n,):
        raise GauntletError(
            f"Detector {label!r} gave scores of shape {tuple(scores.shape)}: one number for each of the {n} images, "
            f"shape ({n},), is right."
        )
    # The sum, which NaN and infinity come through, is looked at first: it is the faster test.
    bad = 0 if bool(scores.sum().isfinite()) else int((~scores.isfinite()).sum())
    if bad:
        raise GauntletError(f"Detector {label!r} gave {bad} of {n} scores that are not finite (NaN or infinite).")
    return scores
