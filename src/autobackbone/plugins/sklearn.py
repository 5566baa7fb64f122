"""The search, and the features of its networks, as estimators of scikit-learn.

from autobackbone.plugins.sklearn import BackboneClassifier

classifier = BackboneClassifier(budget="10min").fit(paths, labels)
classifier.predict(new_paths)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from autobackbone._api import select_backbone
from autobackbone.backbones.every import Backbones
from autobackbone.calibration import calibrated
from autobackbone.choices import require_preference
from autobackbone.data import Preparation
from autobackbone.data.parts import values_of
from autobackbone.data.sources import from_home
from autobackbone.errors import ArgumentError, BackboneError, RunError
from autobackbone.handing import Strategy
from autobackbone.latency.target import resolve
from autobackbone.plugins.carrying import CarriedNetwork
from autobackbone.plugins.inputs import are_paths, pictures_of, range_of
from autobackbone.plugins.targets import Targets, class_targets, first_of_each, number_targets
from autobackbone.progress import Reporter
from autobackbone.records import Budget, ImageSize, Limits, Preference, Resize, Target, as_image_sizes
from autobackbone.runfolder import RunFolder, new_run_path
from autobackbone.runners import RunnerRay
from autobackbone.scratch import scratch_folder
from autobackbone.search.extras import Setting
from autobackbone.selection import Selection, open_run
from autobackbone.settings import BatchNorm, Rare

if TYPE_CHECKING:
    from torchmetrics import Metric as TorchMetric

    from autobackbone.backbones.weights import GivenWeights

EXPECTED_FAILED_CHECKS: Mapping[str, Mapping[str, str]] = {
    "BackboneClassifier": {},
    "BackboneRegressor": {
        "check_regressor_multioutput": (
            "asks for float64; several numbers come as one does, in float32, which is all that a network has counted"
        ),
    },
    "BackboneFeatures": {},
}
"""By class, the checks of scikit-learn's `check_estimator` that it fails, each with the reason."""

# What belongs to this process: a pickle goes without.
_LEFT_BEHIND = ("_selection", "_let_go")
_FILE, _LABEL = "file", "label"


class _Searching(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """What the two share: `fit` searches, and the chosen network predicts."""

    def __init__(  # noqa: PLR0913  as the facade
        self,
        *,
        budget: Budget | float | str = "10min",
        metric: str | TorchMetric | None = None,
        backbones: str | Sequence[str] | None = None,
        image_sizes: Sequence[int | Sequence[int]] | int | None = None,
        target: Target | None = None,
        limits: Limits | None = None,
        space: Mapping[str, Setting] | None = None,
        prefer: Preference | None = None,
        runs_dir: str | Path | None = None,
        random_state: int | np.random.RandomState | None = 0,
        resize: Resize = "squash",
        tolerance: float | None = None,
        rare: Rare = "leave_out",
        value_range: tuple[float, float] | None = None,
        channels: Sequence[int] | None = None,
        weights: GivenWeights = None,
        max_download_mb: float = 2000,
        cache_dir: str | Path | None = None,
        cache_gb: float | None = None,
        batch_norm: BatchNorm = "fixed",
        sampler: Any = None,
        costs: str | Path | None = None,
        stop_early: bool = False,
        workers: int | None = None,
        devices_per_trial: int = 1,
        strategy: Strategy = "ddp",
        trainer_kwargs: Mapping[str, Any] | None = None,
        callbacks: Any = None,
        loggers: Any = None,
        runner: RunnerRay | Literal["ray"] | None = None,
        storage: str | None = None,
        progress: bool | Reporter = False,
    ) -> None:
        self.budget = budget
        self.metric = metric
        self.backbones = backbones
        self.image_sizes = image_sizes
        self.target = target
        self.limits = limits
        self.space = space
        self.prefer = prefer
        self.runs_dir = runs_dir
        self.random_state = random_state
        self.resize = resize
        self.tolerance = tolerance
        self.rare = rare
        self.value_range = value_range
        self.channels = channels
        self.weights = weights
        self.max_download_mb = max_download_mb
        self.cache_dir = cache_dir
        self.cache_gb = cache_gb
        self.batch_norm = batch_norm
        self.sampler = sampler
        self.costs = costs
        self.stop_early = stop_early
        self.workers = workers
        self.devices_per_trial = devices_per_trial
        self.strategy = strategy
        self.trainer_kwargs = trainer_kwargs
        self.callbacks = callbacks
        self.loggers = loggers
        self.runner = runner
        self.storage = storage
        self.progress = progress

    @property
    def selection_(self) -> Selection:
        """The run behind the fit, as long as its folder is there.

        Raises:
            NotFittedError: there was no fit.
            AttributeError: the folder is gone or damaged. So `hasattr`, and whoever lists attributes, gets along.
        """
        check_is_fitted(self)
        if "_selection" not in vars(self):
            if not RunFolder(path=Path(self.run_dir_)).exists():
                raise AttributeError(
                    f"the run in {self.run_dir_!r} is gone, and with it its selection: with runs_dir=None a run lives "
                    "as long as the estimator that was fitted. Predictions need none. Give runs_dir= to keep runs."
                )
            try:
                self._selection = open_run(self.run_dir_)
            except RunError as error:
                raise AttributeError(f"the selection cannot be had: {error}") from error
        return self._selection

    def _search(self, pictures: Any, targets: Targets, groups: Any) -> Self:
        """Search, and keep the chosen network."""
        if self.prefer is not None:
            require_preference(self.prefer)
        path, let_go = self._new_run()
        self._forget()
        self._let_go = weakref.finalize(self, let_go)
        try:
            selection = self._searched(pictures, targets, groups, path)
        except BaseException:
            self._forget()
            raise
        trial = selection.best if self.prefer is None else selection.select(self.prefer)
        self.network_ = CarriedNetwork.of_trial(selection, trial)
        self.best_trial_ = trial
        self.task_ = targets.task
        self.run_dir_ = str(path)
        self._selection = selection
        return self

    def _searched(self, pictures: Any, targets: Targets, groups: Any, path: Path) -> Selection:
        dataset, label, groups = _dataset(pictures, targets, groups)
        return select_backbone(
            dataset,
            self.budget,
            task=targets.task,
            label=label,
            metric=self.metric,
            backbones=self.backbones,
            image_sizes=self.image_sizes,
            target=self.target,
            limits=self.limits,
            space=self.space,
            groups=groups,
            run_dir=path,
            seed=_seed(self.random_state),
            resize=self.resize,
            tolerance=self.tolerance,
            rare=self.rare,
            value_range=self.value_range,
            channels=self.channels,
            weights=self.weights,
            max_download_mb=self.max_download_mb,
            cache_dir=self.cache_dir,
            cache_gb=self.cache_gb,
            batch_norm=self.batch_norm,
            sampler=self.sampler,
            costs=self.costs,
            stop_early=self.stop_early,
            workers=self.workers,
            devices_per_trial=self.devices_per_trial,
            strategy=self.strategy,
            trainer_kwargs=self.trainer_kwargs,
            callbacks=self.callbacks,
            loggers=self.loggers,
            runner=self.runner,
            storage=self.storage,
            progress=self.progress,
        )

    def _new_run(self) -> tuple[Path, Callable[[], object]]:
        """A folder for a run, and what removes it where nobody asked to keep it."""
        stack = ExitStack()
        if self.runs_dir is None:
            return stack.enter_context(scratch_folder()) / "run", stack.close
        if not isinstance(self.runs_dir, (str, PathLike)):
            raise ArgumentError(f"runs_dir is the path of a folder, or None, not {self.runs_dir!r}.")
        parent = from_home(self.runs_dir)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            while True:
                path = new_run_path(parent, datetime.now(tz=UTC).astimezone())
                with suppress(FileExistsError):  # another fit, side by side, was faster
                    path.mkdir()
                    return path, stack.close
        except (OSError, ValueError) as error:  # ValueError of a zero byte
            is_taken = isinstance(error, FileExistsError)
            why = "something else is there" if is_taken else getattr(error, "strerror", None) or error
            raise ArgumentError(
                f"runs_dir is a folder that can be made and written, or None; {str(parent)!r}: {why}. Give another one."
            ) from error

    def _forget(self) -> None:
        """A run that nobody asked to keep ends with its fit."""
        if "_let_go" in vars(self):
            self._let_go()
        for name in [name for name in vars(self) if name in _LEFT_BEHIND]:
            delattr(self, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy all that a pickle takes, also where what makes a network cannot be named in one."""
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        copy.__dict__.update({name: deepcopy(of, memo) for name, of in vars(self).items() if name not in _LEFT_BEHIND})
        return copy

    def __getstate__(self) -> dict[str, Any]:
        if "network_" in vars(self):
            self.network_.require_crossing()  # first: pickle would say less of a factory among the parameters
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in _LEFT_BEHIND}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        # Which trial is chosen may hang on latencies, which a clock measures.
        tags.non_deterministic = self.costs is None
        return tags


class BackboneClassifier(ClassifierMixin, _Searching):  # type: ignore[misc]  # as above
    """Classes of pictures, or several labels each, by the network that a search finds.

    `fit` is `select_backbone` on X and y, and `predict` the network that it chooses. Of the pictures it trains on 64 of
    100, chooses by 16, and tests on 20, see `selection_`. Where scores by cross-validation are wanted of the estimator
    as a whole, `cross_val_score` gives them, with a search for each fold.

    X is a list, series or array of paths; a list of Pillow images or arrays (height, width[, channels]); an array (n,
    height, width[, channels]); or a matrix of numbers (n, n_features), whose rows are read as pictures of one row: so
    that it can stand wherever an estimator can, not because that were wise. A path that is repeated, as `Bagging` does
    it, is searched on once, and a warning says so; pictures in memory that are copies of each other stay in one part.

    Args:
        budget: of the search in each `fit`, as for `select_backbone`, whose docstring tells of all arguments that are
            not named here.
        prefer: which trial of the front predicts, a word of `Selection.select`; `None` for `Selection.best`.
        runs_dir: a folder in which each fit keeps its run, in a new, dated one of its own; `None` keeps a run among
            temporary files as long as the estimator lives. A pickle holds the network in any case.
        random_state: a whole number, which is `seed=` of the search; `None`, or a `RandomState`, draws one. The same
            number gives the same network where `costs=` gives the latencies, too, and the budget is one of trials.
        rare: of classes with fewer than 5 pictures `"leave_out"` trains without them and warns, and gives them the
            probability 0; `"error"` refuses. The same holds for labels, which get their share as probability.

    Attributes:
        classes_: (n_classes,) as they stand in y, sorted; of several labels the numbers of their columns.
        selection_: the run: front, table, test scores.
        best_trial_: the trial that predicts.
        network_: its network, with its preprocessing.
        temperature_: by which logits are divided for `predict_proba`, see `Selection.calibration`.
        task_: `"classification"` or `"multilabel"`.
        run_dir_: where the run is, or was.
        n_features_in_: columns of X, where that is a matrix.

    Example:
        classifier = BackboneClassifier(budget="10min", image_sizes=160).fit(paths, labels)
        classifier.predict(["new.jpg"])
    """

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> Self:  # noqa: N803  as scikit-learn calls it
        """Search on pictures and their classes.

        Args:
            X: n pictures, see above.
            y: (n,) classes; or (n, n_labels) of 0 and 1.
            groups: (n,) pictures of one group stay in one part of the search's own split; `None` for none.

        Raises:
            ValueError: X or y cannot be used, or a parameter.
        """
        pictures = pictures_of(self, X, reset=True)
        targets = class_targets(self, y, len(pictures))
        assert targets.classes is not None
        self._search(pictures, targets, groups)
        self.classes_ = targets.classes
        self.temperature_ = self.selection_.calibration(self.best_trial_).temperature
        # Texts, where a table told the columns.
        places = {str(name): place for place, name in enumerate(targets.names)}
        self._columns = [places[str(name)] for name in self.selection_.classes]
        is_multilabel = targets.task == "multilabel"
        self._unseen = (targets.labels.mean(axis=0) if is_multilabel else np.zeros(len(places))).astype(np.float32)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Probabilities, corrected by the temperature.

        Returns:
            (n, n_classes) float32 in the order of `classes_`, which add up to 1; of several labels each for itself.
        """
        check_is_fitted(self)
        said = self.network_.predictions(pictures_of(self, X, reset=False), self.task_)
        found = np.tile(self._unseen, (len(said), 1))
        found[:, self._columns] = calibrated(said, self.temperature_, multilabel=self.task_ == "multilabel")
        return found

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The likeliest class, (n,); or 1 for each label of a probability above 0.5, else 0, (n, n_labels)."""
        probabilities = self.predict_proba(X)
        if self.task_ == "multilabel":
            return (probabilities > 0.5).astype(np.int64)
        likeliest: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return likeliest

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class BackboneRegressor(RegressorMixin, _Searching):  # type: ignore[misc]  # as above
    """One or several numbers of pictures, by the network that a search finds.

    X, parameters and attributes are those of `BackboneClassifier`, without classes.

    Example:
        regressor = BackboneRegressor(budget="10min", metric="mae").fit(paths, ages)
        regressor.predict(["new.jpg"])
    """

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> Self:  # noqa: N803
        """Search on pictures and their numbers.

        Args:
            X: n pictures, see `BackboneClassifier`.
            y: (n,) or (n, n_targets).
            groups: (n,) pictures of one group stay in one part of the search's own split; `None` for none.

        Raises:
            ValueError: X or y cannot be used, or a parameter.
        """
        pictures = pictures_of(self, X, reset=True)
        targets = number_targets(self, y, len(pictures))
        self._search(pictures, targets, groups)
        self._is_flat = targets.labels.ndim == 1
        return self

    def predict(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """The numbers, of the shape that y had, (n,) or (n, n_targets), float32 as networks count."""
        check_is_fitted(self)
        said = self.network_.predictions(pictures_of(self, X, reset=False), self.task_)
        return said[:, 0] if self._is_flat else said

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        # scikit-learn measures it on rows of ten numbers of which one matters: as pictures, by a tiny network of random
        # weights, they gave an r2 of 0.09.
        tags.regressor_tags.poor_score = True
        return tags


class BackboneFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What a network knows of pictures, as columns for any other estimator.

    Nothing is trained. Pictures are prepared as a search prepares them.

    Args:
        backbone: a name as timm writes it, tag included or not, for the network as it came; or a `Selection` or a
            fitted estimator of this module for the network that was found. What clones its estimators, such as
            `GridSearchCV`, leaves nothing fitted: give it in a `FrozenEstimator` of scikit-learn.
        image_size: pixels, or (height, width), for a named network; `None` for its own.
        weights: of a named network, as for `select_backbone`.
        pooled: whether features are what enters the network's classifier; else its last map, or tokens, flattened.
        resize: as for `select_backbone`, for a named network, as are the next two.
        value_range: what is black and white in pictures above 8 bits; `None` measures it in `fit`.
        channels: which of many.
        batch_size: pictures in one pass, at least 1.
        device: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`.

    Attributes:
        network_: the network, with its preprocessing.
        n_features_in_: columns of X, where that is a matrix.

    Example:
        pipeline = make_pipeline(BackboneFeatures("resnet50"), LogisticRegression()).fit(paths, labels)
    """

    def __init__(
        self,
        backbone: str | Selection | Any,
        *,
        image_size: int | Sequence[int] | None = None,
        weights: GivenWeights = None,
        pooled: bool = True,
        resize: Resize = "squash",
        value_range: tuple[float, float] | None = None,
        channels: Sequence[int] | None = None,
        batch_size: int = 32,
        device: str = "auto",
    ) -> None:
        self.backbone = backbone
        self.image_size = image_size
        self.weights = weights
        self.pooled = pooled
        self.resize = resize
        self.value_range = value_range
        self.channels = channels
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002, N803  as scikit-learn calls it
        """Load the network; of pictures above 8 bits also measure what is black and white.

        Args:
            X: n pictures, see `BackboneClassifier`.
            y: not looked at.

        Raises:
            ValueError: X or a parameter cannot be used.
        """
        is_number = isinstance(self.batch_size, int) and self.batch_size >= 1
        if not is_number:
            raise ArgumentError(f"batch_size is a whole number from 1; {self.batch_size!r} came.")
        pictures = pictures_of(self, X, reset=True)
        is_named = isinstance(self.backbone, str)
        self.network_ = self._named(str(self.backbone), pictures) if is_named else self._found()
        self._n_features_out = self._features(pictures[:1]).shape[1]
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Features of pictures, (n, n_features) float32."""
        check_is_fitted(self)
        return self._features(pictures_of(self, X, reset=False))

    def _features(self, pictures: Any) -> NDArray[np.float32]:
        device = resolve(Target(device=self.device)).device
        return self.network_.features(pictures, is_pooled=self.pooled, n_at_once=self.batch_size, device=device)

    def _named(self, backbone: str, pictures: Any) -> CarriedNetwork:
        names = Backbones().resolve(backbone)
        if len(names) > 1:
            raise BackboneError(f"features are those of one backbone; {backbone!r} are {len(names)}. Name one.")
        channels = tuple(self.channels) if isinstance(self.channels, Sequence) else self.channels
        preparation = Preparation(resize=self.resize, value_range=self.value_range, channels=channels)
        if preparation.value_range is None:
            preparation = replace(preparation, value_range=range_of(pictures, preparation.channels))
        return CarriedNetwork.of_name(names[0], self._size_for(names[0]), preparation, self.weights)

    def _size_for(self, name: str) -> ImageSize:
        if self.image_size is None:
            return Backbones()[name].image_sizes(None)[-1]
        wanted = as_image_sizes([self.image_size])
        taken = Backbones()[name].image_sizes(wanted)
        if not taken:
            raise BackboneError(f"{name!r} cannot take image_size={self.image_size!r}. Give another one, or None.")
        return taken[0]

    def _found(self) -> CarriedNetwork:
        """A copy of the network that was found, which this one may move to a device."""
        found = self.backbone.estimator if isinstance(self.backbone, FrozenEstimator) else self.backbone
        if not isinstance(found, (Selection, _Searching)):
            raise ArgumentError(
                "backbone is the name of one, a Selection, or a fitted BackboneClassifier or BackboneRegressor; "
                f"{found!r} came."
            )
        settled = {"image_size": None, "weights": None, "resize": "squash", "value_range": None, "channels": None}
        given = [name for name, usual in settled.items() if getattr(self, name) != usual]
        if given:
            raise ArgumentError(f"a network that was found has its own preprocessing: leave {', '.join(given)} out.")
        if isinstance(found, Selection):
            return deepcopy(CarriedNetwork.of_trial(found, found.best))
        message = (
            "backbone is a %(name)s that is not fitted, perhaps since it was cloned. Fit it before, and give "
            "FrozenEstimator(estimator)."
        )
        check_is_fitted(found, msg=message)
        return deepcopy(found.network_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _dataset(pictures: Any, targets: Targets, groups: Any) -> tuple[Any, str | list[str] | None, Any]:
    """What is searched on, the columns of its labels where it is a table, and its groups."""
    if not are_paths(pictures):
        return (pictures, targets.labels), None, groups
    names = [str(path) for path in pictures]
    kept = first_of_each(names, targets.labels)
    if groups is not None and not callable(groups):
        of_all = values_of(groups, tuple(names), "groups")
        groups = [of_all[row] for row in kept]
    labels = targets.labels[kept]
    table = pd.DataFrame({_FILE: [names[row] for row in kept]})
    if labels.ndim == 1:
        table[_LABEL] = labels
        return table, _LABEL, groups
    columns = [str(name) for name in targets.names]
    table[columns] = labels
    return table, columns, groups


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
