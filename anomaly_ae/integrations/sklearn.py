"""A detector as a scikit-learn estimator."""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from anomaly_ae.autoencoders import AUTOENCODERS, image_size
from anomaly_ae.autoencoders.inference import pick_device
from anomaly_ae.calibration.rates import images_needed, smallest_rate
from anomaly_ae.config.run_config import TYPES, RunConfig
from anomaly_ae.datasets.feature_rows import RowLayout, Rows, Scale
from anomaly_ae.datasets.splits import Part, Split
from anomaly_ae.datasets.splitting import split_rows
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import fit
from anomaly_ae.errors import AnomalyAEError, DataError, EstimatorError, TooFewRows
from anomaly_ae.escaping import times
from anomaly_ae.images.image_set import Dataset, ImageSet
from anomaly_ae.images.preprocessing import Preprocessing, resize
from anomaly_ae.integrations.estimator_file import EstimatorRecord, ScaleRecord, estimator_errors, plain_settings
from anomaly_ae.metrics.ranking import require_numbers
from anomaly_ae.runtime.torch_state import left_as_found, spinning
from anomaly_ae.storage.atomic import expand

FEATURES: dict[str, Any] = {"autoencoder": "multilayer", "scorer": "mse+latent-knn"}  # for rows that are no pictures
FEW_VALUES = 128  # from which a latent of 64 is narrow
SPARE_SCORES = 2  # calibration scores that may lie at the threshold or above: by the highest alone it would vary more
ROWS_NAME, ROWS_CLASS = "rows", "normal"  # the names of a data set that has none, and of its class
FEWEST_ROWS = 3  # one to fit, one to tell when to stop, one to calibrate

Floats = npt.NDArray[np.float64]


class AutoencoderDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Autoencoder for novelty detection.

    Train an autoencoder on rows or images of what is normal, and say which new ones are not. As in all of
    scikit-learn, and other than in the rest of this package, scores are higher for what is more normal.

    X is flat rows of shape (n_samples, n_features), or images of shape (n_samples, H, W), (n_samples, C, H, W) or
    (n_samples, H, W, C); the channels come last where the last axis is 1, 3 or 4 and the second is not.

    - A row is read as a square image where n_features is a square, and as an image of 1 × n_features where not,
      unless `image_shape` says otherwise.
    - Images from 8×8 pixels are pictures, seen by a convolutional network. `uint8` means 0 to 255, numbers that
      all lie in [0, 1] are taken as they are, and others are brought there: the least that was seen in training
      becomes 0, the greatest 1.
    - Smaller images are rows of features, seen by a dense network, each brought to [0, 1] by itself.
    - Values beyond those seen in training are not cut off: they go beyond [0, 1], and are the more unusual for it.

    Parameters
    ----------
    autoencoder : str, default=None
        The architecture, one of those that `anomaly-ae autoencoders` lists; None: "conv" for pictures, "multilayer"
        for features.
    latent : int, default=None
        The number of latent dimensions; None: the architecture's own, for features at most half their number.
    objective : str, default=None
        What the network is trained for, such as "mse" or "mse+0.5*ssim"; None: the architecture's own.
    scorer : str, default=None
        How a score is made, one of those that `anomaly-ae scorers` lists, or several joined by "+"; None:
        "aligned-knn" for pictures, "mse+latent-knn" for features.
    target_fpr : float, default=0.05
        The false-alarm rate: the share of normal samples, above 0 and below 1, that `predict` may call outliers;
        None: 0.05.
    epochs : int, default=None
        Passes over the training samples at the most; None: as many as come nearest to 1500 steps, at most 200.
    batch_size : int, default=None
        Samples of a training step; None: 128.
    learning_rate : float, default=None
        The peak of the learning rate; None: the architecture's own.
    image_shape : tuple of int, default=None
        What a flat row is: (H, W), (C, H, W) or (H, W, C).
    random_state : int, RandomState instance or None, default=None
        Controls which samples calibrate, the first weights and the order of training.
        Pass an int for reproducible results across multiple function calls.
    device : {"auto", "cpu", "cuda", "mps"}, default="auto"
        Where to compute.

    Attributes
    ----------
    detector_ : Detector
        The fitted detector. It takes images as the network sees them, in [0, 1]; its scores are higher for what is
        more anomalous.
    offset_ : float
        Offset used to define the decision function from the raw scores:
        ``decision_function = score_samples - offset_``. It is the negative of `detector_.threshold`.
    target_fpr_ : float
        The false-alarm rate that the threshold is set for: `target_fpr`, or the smallest that the rows can hold.
    n_features_in_ : int
        Number of values of a sample seen during `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen during `fit`. Defined only when `X` has feature names that are all strings.
    layout_ : Layout
        How a row is read as an image: `layout_.shape` is (C, H, W).
    scale_ : Scale
        What of the values becomes 0 and what becomes 1.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Detection by random trees.
    anomaly_ae.train : The same from the command line's settings, with a record of every run.

    Notes
    -----
    Of the samples, 10 % tell when to stop training, and 10 % set the threshold and serve for nothing else: more
    where `target_fpr` needs more (39 for 0.05), up to half of all. The others train the network. For normal samples
    exchangeable with those that set the threshold the probability of a false alarm is at most `target_fpr_`. For a
    rate of 0.05, 38 samples are enough; with fewer, `fit` warns (`anomaly_ae.errors.TooFewRows`) and takes the
    smallest rate that they can hold. 3 samples are the fewest.

    Fitting writes no files and prints nothing. The estimator can be pickled as any; `save` and `load` do without.

    Examples
    --------
    >>> from anomaly_ae import AutoencoderDetector
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)  # 8×8 images as rows of 64
    >>> normal = X[y == 0]
    >>> detector = AutoencoderDetector(random_state=0, epochs=20).fit(normal[:150])
    >>> detector.predict(X[y == 4][:3])
    array([-1, -1, -1])
    """

    def __init__(
        self,
        *,
        autoencoder: str | None = None,
        latent: int | None = None,
        objective: str | None = None,
        scorer: str | None = None,
        target_fpr: float = 0.05,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        image_shape: tuple[int, ...] | None = None,
        random_state: Any = None,
        device: str = "auto",
    ) -> None:
        self.autoencoder = autoencoder
        self.latent = latent
        self.objective = objective
        self.scorer = scorer
        self.target_fpr = target_fpr
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.image_shape = image_shape
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: object = None) -> "AutoencoderDetector":
        """Fit the detector to normal samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The normal samples, 3 at the least.

        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : object
            Fitted estimator.
        """
        rows, layout = self._read(X)
        with _value_errors(), left_as_found():
            config = self._config(layout)
            parts = split_rows(len(rows), config.seed, images_needed(config.rate / SPARE_SCORES))
            rate = _possible_rate(config.rate, len(parts[2]), len(rows))
            config = dataclasses.replace(config, target_fpr=rate)
            if pick_device(config.device).type == "cpu" and (reason := spinning()):
                warnings.warn(reason, RuntimeWarning, stacklevel=2)  # whoever called this
            learned_from = rows[torch.cat(parts[:2]).numpy()]  # what calibrates has no say in the scale
            self.scale_ = Scale.of(learned_from, layout.is_picture)
            shape = layout.shape  # features are seen as they are, pictures at the network's size
            if layout.is_picture:
                shape = (shape[0], *image_size(str(config.autoencoder), None, shape[1:]))
            preprocessing = Preprocessing(*shape)
            experiment = Experiment.build(config, preprocessing, (ROWS_CLASS,), (ROWS_CLASS,))
            images = _to_images(rows, layout, self.scale_, preprocessing)
            labels = torch.zeros(len(images), dtype=torch.int64)
            dataset = Dataset(ROWS_NAME, (ROWS_CLASS,), {"train": ImageSet(images, labels)})
            nothing = torch.zeros(0, dtype=torch.int64)
            split = Split(*(Part.of(dataset, "train", indices) for indices in (*parts, nothing)))
            taken = {name: getattr(split, name).take(dataset) for name in ("fit", "validation", "calibration")}
            self.detector_ = fit(experiment, taken, split)
        self.layout_, self.target_fpr_ = layout, self.detector_.calibration.target_fpr
        self.offset_ = -self.detector_.threshold
        return self

    def score_samples(self, X: Any) -> Floats:
        """Negative anomaly scores: the lower, the more anomalous.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The samples, in the units of those given to `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            The scores of `detector_`, with the opposite sign. They have no lower bound.
        """
        check_is_fitted(self)
        rows, _ = self._read(X, fitted=True)
        detector = self.detector_
        with _value_errors():
            images = _to_images(rows, self.layout_, self.scale_, detector.preprocessing)
            features = not self.layout_.is_picture  # cheap, and scikit-learn wants the same of one row as of many
            scores = detector.scorer.score_all(detector.network, images, whole=features)
            require_numbers(scores)
        return -scores.double().numpy()

    def decision_function(self, X: Any) -> Floats:
        """Scores less the offset: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The samples.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``, negative exactly where the detector's score is above its threshold.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> npt.NDArray[np.int_]:
        """Whether each sample is an inlier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The samples.

        Returns
        -------
        is_inlier : ndarray of shape (n_samples,)
            +1 for inliers, -1 for outliers.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def save(self, folder: str | Path) -> None:
        """Write the estimator to a folder, without pickle; `anomaly_ae.load` reads the detector in it, too.

        A RandomState is saved as None. Raises `StorageError` when the folder holds something else or cannot be
        written.
        """
        check_is_fitted(self)
        self.detector_.save(folder)
        names = getattr(self, "feature_names_in_", None)
        record = EstimatorRecord(
            detector=self.detector_.digest,
            settings=plain_settings(self.get_params()),
            layout=self.layout_,
            scale=ScaleRecord(tuple(self.scale_.low.tolist()), tuple(self.scale_.high.tolist())),
            feature_names=None if names is None else tuple(names),
        )
        record.write(expand(folder))

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "AutoencoderDetector":
        """Read an estimator that `save` wrote; nothing in it is executed.

        Raises `ModelNotFound` when there is none, `DetectorDamaged` when it is incomplete or was changed.
        """
        detector = Detector.load(expand(folder), device)
        with estimator_errors(expand(folder)):
            record = EstimatorRecord.read(expand(folder), detector)
            shape = record.settings.get("image_shape")
            estimator = cls(**record.settings | {"image_shape": tuple(shape) if shape else None})
        estimator.detector_ = detector
        estimator.layout_ = record.layout
        estimator.scale_ = Scale.between(record.scale.low, record.scale.high)
        estimator.target_fpr_, estimator.offset_ = detector.calibration.target_fpr, -detector.threshold
        estimator.n_features_in_ = math.prod(estimator.layout_.shape)
        if record.feature_names:
            estimator.feature_names_in_ = np.array(record.feature_names, dtype=object)
        return estimator

    def _read(self, X: Any, fitted: bool = False) -> tuple[Rows, RowLayout]:
        """What was given as rows (n_samples, n_features), and how these are images. Raises `ValueError`."""
        X = np.asarray(X) if isinstance(X, list | tuple) else X
        shape = tuple(X.shape[1:]) if getattr(X, "ndim", 2) > 2 else None
        X = X if shape is None else np.asarray(X).reshape(len(X), math.prod(shape))
        rows = validate_data(self, X, reset=not fitted, ensure_min_samples=1 if fitted else FEWEST_ROWS)
        with _value_errors():
            layout = self.layout_ if fitted else RowLayout.of(self.image_shape or shape or rows.shape[1:])
            if math.prod(layout.shape) != rows.shape[1] or (shape and RowLayout.of(shape) != layout):
                what = f"images of {times(shape)}" if shape else f"rows of {rows.shape[1]} values"
                raise DataError(f"{what} were given, and images of {times(layout.given)} expected")
        return rows, layout

    def _config(self, layout: RowLayout) -> RunConfig:
        """What was asked for, with what suits such images where nothing was. Raises `UsageError`."""
        settings = {name: value for name, value in self.get_params().items() if name in TYPES}
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        named = {"dataset": ROWS_NAME, "normal": ROWS_CLASS, "seed": seed}
        usual = {} if layout.is_picture else {name: FEATURES[name] for name in FEATURES if settings[name] is None}
        config = RunConfig.build(settings, usual, named).filled()
        values, entry = math.prod(layout.shape), AUTOENCODERS.get(str(config.autoencoder))
        if not config.latent and entry and entry.family == "dense" and values < FEW_VALUES:
            config = dataclasses.replace(config, latent=max(1, values // 2))  # that it does not copy its few inputs
        return config


@contextmanager
def _value_errors() -> Iterator[None]:
    """What this package raises as `ValueError`, too, which scikit-learn's users and tools go by."""
    try:
        yield
    except AnomalyAEError as error:
        raise EstimatorError(str(error)) from error


def _to_images(rows: Rows, layout: RowLayout, scale: Scale, preprocessing: Preprocessing) -> Tensor:
    """Rows (N, D) as a detector's network sees them, (N, C, H, W): uint8, or float32, [0, 1] for what is usual."""
    return resize(layout.images(scale.apply(rows)), (preprocessing.height, preprocessing.width))


def _possible_rate(target_fpr: float, calibrating: int, count: int) -> float:
    """The rate asked for, or the smallest that so many of `count` rows can hold, and a warning."""
    smallest = smallest_rate(calibrating)
    if target_fpr >= smallest:
        return target_fpr
    warnings.warn(
        f"a false-alarm rate of {target_fpr:g} needs {images_needed(target_fpr):,} samples to set the threshold "
        f"with, and twice as many in all, and {count:,} were given: it is set for a rate of {smallest:g}; fit more "
        "samples, or ask for a higher target_fpr",
        TooFewRows,
        stacklevel=3,  # whoever called `fit`
    )
    return smallest
