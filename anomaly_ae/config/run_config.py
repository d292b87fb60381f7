"""One frozen `RunConfig`: what a training is asked to do. A flag and a YAML key are the same field."""

import dataclasses
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from anomaly_ae.config.boxes import BOXES, are_boxes, boxes_of
from anomaly_ae.config.presets import AUTO, PRESETS
from anomaly_ae.errors import UnknownName, UsageError, errors_at
from anomaly_ae.runtime.renamed import SETTINGS, current
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.yaml_files import Line

DEVICES = ("auto", "cpu", "cuda", "mps")
FLOAT32, BFLOAT16 = "float32", "bfloat16"
IMAGE_SIZE = re.compile(r"[1-9]\d{0,4}(x[1-9]\d{0,4})?")
VALUE = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?"
INTENSITY = re.compile(rf"(?P<percentiles>p)?(?P<low>{VALUE}):(?(percentiles)p)(?P<high>{VALUE})", re.IGNORECASE)
SUMS = ("scorer", "objective", "augment", "roi")
JOINED = {"image_size": "x", "tile": "x", "intensity": ":"} | dict.fromkeys(SUMS, "+")  # lists
LONGEST_SHOWN = 60  # letters of a value in a message
MARGINAL, CONDITIONAL, TAIL, CROSS = "marginal", "conditional", "tail", "cross"
GUARANTEES = (MARGINAL, CONDITIONAL, TAIL, CROSS)  # how a threshold holds a rate, see calibration/conformal.py
USUAL_RATE = 0.05  # of false alarms
ONE_CYCLE, CONSTANT = "one-cycle", "constant"


def _number(low: float, high: float = math.inf, *, text: str) -> dict[str, Any]:
    """Metadata of a field whose value lies in [low, high]; `text` is that range in words."""
    return {"low": low, "high": high, "range": text}


@dataclass(frozen=True)
class RunConfig:
    """All settings of one training; what is not said has a default that works.

    Values are brought to their type: `normal=[0, 1]`, `epochs="5"`, `dataset=Path("tiles")`. Settings that the preset
    names, as autoencoder, scorer, batch size and patience, are its own where they are None.

    Attributes:
        normal: classes that are normal: "0,1,2", "0-4", "all-but:7"; "": as the folder of pictures says
        dataset: the name of a data set, or a folder of pictures or a manifest, or the address of one
        data_dir: where data sets lie; None: ANOMALY_AE_DATA_DIR, else ./data
        image_size: "64" or "64x48", height first; None: as the autoencoder or the data have it
        tile: pixels of overlapping tiles that the network sees the images in, as `image_size`; None: whole images
        channels: 1 or 3; None: as the pictures have it
        resize_mode: what is done with other proportions: stretch, pad or crop
        intensity: LOW:HIGH, the values that are black and white in pictures of more than 8 bits, or p1:p99,
            percentiles of theirs; None: found in the training pictures
        roi: what is looked at: boxes x,y,w,h in shares of the picture, joined by +, or an image file, white where to
            look; None: all of it
        autoencoder: a name of the catalogue; None: the preset's own
        backbone: the timm network whose features feature-conv sees; None: the packaged one
        backbone_weights: a safetensors file of its weights; None: the packaged ones
        download: whether weights of a backbone that are not at hand may be downloaded
        latent: its dimensions, from 1; None: the autoencoder's own
        batch_norm: whether there is batch normalisation; None: the autoencoder's own way
        dropout: from 0 to 0.99
        objective: what the network is trained for; None: the autoencoder's own
        perceptual: whose features the objective perceptual compares
        noise: σ, from 0 to 1, of Gaussian noise that the network must see through in training
        masked: share of the pixels hidden from it in training, from 0 to 0.95
        defects: share of the images in which defects are planted for the network to repair; None: the autoencoder's
            own
        augment: how training images may be varied and stay normal
        preset: what fills in that was left open; auto: found by the images
        scorer: a name of the catalogue, or several joined by +; None: the preset's own
        top_fraction: share of the heat map, its highest values, whose mean is the score; None: the scorer's own
        trim_training: share of the fit images, those that fit worst, that is left out of training and of memories,
            from 0 to 0.5
        contamination: share of novel images smuggled into the fit set, to see what they do to a detector, from 0
            to 0.5
        target_fpr: the false-alarm rate to hold, above 0 and below 1; None: 0.05, or where the normal images are
            too few for that the smallest that they can hold, up to 0.125
        from_run: the run whose weights and data are gone on from
        add_marks: with it the file of marks whose good images are normal, too
        guarantee: how the threshold holds the rate: marginal, conditional, tail or cross; None: marginal, or cross
            where few images and cheap folds ask for it
        folds: of cross: how many detectors there are, each of which has not seen a part of the images; None: 5 to 10
        epochs: None: as many as come nearest to `steps`
        steps: optimiser steps; None: the autoencoder's own, 1500 for most
        patience: epochs without a better one until training stops
        batch_size: images of a step, 2 or more
        learning_rate: the peak of a cycle, or the constant; None: the autoencoder's own
        schedule: one-cycle or constant
        weight_decay: 0 or more
        precision: float32 or bfloat16; auto: bfloat16 where the processor has it, and the first steps show that it is
            much faster and as good
        seed: the same one gives the same weights
        device: auto, cpu, cuda or mps
        experiment: MLflow's

    Raises:
        UsageError: values of another type or out of their range, all of them named at once

    Examples:
        >>> from anomaly_ae import RunConfig
        >>> RunConfig(normal=[0, 1, 2], epochs="5").normal
        '0,1,2'
        >>> RunConfig.build({"normal": "all-but:7"}, {"training.epochs": 5}).epochs  # as files have it
        5
        >>> RunConfig(epochs=0)
        Traceback (most recent call last):
            ...
        anomaly_ae.errors.UsageError: epochs must be 1 or more, and is 0
    """

    normal: str = ""
    dataset: str = "digits"
    data_dir: str | None = None
    image_size: str | None = None
    tile: str | None = None
    channels: int | None = field(default=None, metadata={"choices": (None, 1, 3)})
    resize_mode: str = field(default="stretch", metadata={"choices": ("stretch", "pad", "crop")})
    intensity: str | None = None
    roi: str | None = None
    autoencoder: str | None = None
    backbone: str | None = None
    backbone_weights: str | None = None
    download: bool = False
    latent: int | None = field(default=None, metadata=_number(1, 2**24, text="from 1 to 16777216"))
    batch_norm: bool | None = None
    dropout: float = field(default=0.0, metadata=_number(0, 0.99, text="from 0 to 0.99"))
    objective: str | None = None
    perceptual: str | None = None
    noise: float = field(default=0.0, metadata=_number(0, 1, text="from 0 to 1"))
    masked: float = field(default=0.0, metadata=_number(0, 0.95, text="from 0 to 0.95"))
    defects: float | None = field(default=None, metadata=_number(0, 1, text="from 0 to 1"))
    augment: str | None = None
    preset: str = field(default=AUTO, metadata={"choices": tuple(PRESETS)})
    scorer: str | None = None
    top_fraction: float | None = field(default=None, metadata=_number(1e-6, 1, text="above 0 and at most 1"))
    trim_training: float = field(default=0.0, metadata=_number(0, 0.5, text="from 0 to 0.5"))
    contamination: float = field(default=0.0, metadata=_number(0, 0.5, text="from 0 to 0.5"))
    target_fpr: float | None = field(default=None, metadata=_number(1e-9, 0.999, text="above 0 and below 1"))
    from_run: str | None = None
    add_marks: str | None = None
    guarantee: str | None = field(default=None, metadata={"choices": (None, *GUARANTEES)})
    folds: int | None = field(default=None, metadata=_number(2, 100, text="from 2 to 100"))
    epochs: int | None = field(default=None, metadata=_number(1, 1_000_000, text="1 or more"))
    steps: int | None = field(default=None, metadata=_number(1, 100_000_000, text="1 or more"))
    patience: int | None = field(default=None, metadata=_number(1, text="1 or more"))
    batch_size: int | None = field(default=None, metadata=_number(2, 1_048_576, text="2 or more"))
    learning_rate: float | None = field(default=None, metadata=_number(1e-12, 100, text="above 0"))
    schedule: str = field(default=ONE_CYCLE, metadata={"choices": (ONE_CYCLE, CONSTANT)})
    weight_decay: float = field(default=1e-4, metadata=_number(0, 100, text="0 or more"))
    precision: str = field(default=AUTO, metadata={"choices": (AUTO, FLOAT32, BFLOAT16)})
    seed: int = field(default=0, metadata=_number(0, 2**31 - 1, text="from 0 to 2147483647"))
    device: str = field(default="auto", metadata={"choices": DEVICES})
    experiment: str = field(default="anomaly-ae", metadata={"blank": False, "longest": 500})

    def __post_init__(self) -> None:
        wrong = []
        for f in fields(self):
            try:
                object.__setattr__(self, f.name, check_value(f.name, getattr(self, f.name)))
            except UsageError as error:
                wrong.append(str(error))
        if bool(self.from_run) != bool(self.add_marks):
            given, missing = ("from_run", "add_marks") if self.from_run else ("add_marks", "from_run")
            wrong.append(f"{setting(given)} goes with {setting(missing)}; name both")
        if wrong:
            raise UsageError("; ".join(wrong))

    def __repr__(self) -> str:
        said = [f"{f.name}={value!r}" for f in fields(self) if (value := getattr(self, f.name)) != f.default]
        return f"RunConfig({', '.join(said)})"

    @property
    def rate(self) -> float:
        """The false-alarm rate to hold: the usual one where none is asked."""
        return USUAL_RATE if self.target_fpr is None else self.target_fpr

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that were asked for."""
        return _size(self.image_size)

    @property
    def tile_size(self) -> tuple[int, int] | None:
        """Height and width of the tiles that larger images are seen in."""
        return _size(self.tile)

    @classmethod
    def build(cls, *layers: Mapping[str, Any]) -> "RunConfig":
        """Merge layers of settings, the later ones over the earlier.

        A key may name its part too, as in `training.epochs`.
        Raises `UnknownName` for a key that is no setting, `UsageError` for a value of the wrong type or range.
        """
        return cls(**{field_name(str(key)): value for layer in layers for key, value in layer.items()})

    def filled(self) -> "RunConfig":
        """The same with what its preset says where nothing was said."""
        preset = {name: value for name, value in PRESETS[self.preset].items() if getattr(self, name) is None}
        return dataclasses.replace(self, **preset)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self)


TYPES: dict[str, Any] = typing.get_type_hints(RunConfig)
# Settings that say where, not what
LOCATION_FIELDS = ("add_marks", "backbone_weights", "data_dir", "device", "download", "experiment", "from_run")
# The parts that a file may group its settings by.
SETTING_GROUPS: dict[str, tuple[str, ...]] = {
    "data": (
        *("normal", "dataset", "data_dir", "image_size", "tile", "channels", "resize_mode", "intensity", "roi"),
        "contamination",
    ),
    "network": ("autoencoder", "latent", "batch_norm", "dropout"),
    "training": (
        *("objective", "perceptual", "noise", "masked", "defects", "augment", "epochs", "steps", "patience"),
        *("batch_size", "learning_rate", "schedule", "weight_decay", "precision", "seed", "device", "trim_training"),
    ),
    "detection": ("preset", "scorer", "top_fraction", "target_fpr", "guarantee", "folds"),
}
DOTTED = tuple(f"{part}.{name}" for part, names in SETTING_GROUPS.items() for name in names)


def field_name(key: str) -> str:
    """The field that a key means: `epochs`, `batch-size` and `training.epochs`. Raises `UnknownName`."""
    part, dot, name = key.replace("-", "_").rpartition(".")
    plain = part + dot + current(name, SETTINGS)
    if plain not in (*TYPES, *DOTTED):
        same = [dotted for dotted in DOTTED if dotted.endswith(f".{plain.rpartition('.')[2]}")]
        raise UnknownName("setting", key, (same or DOTTED) if "." in key else TYPES)
    return plain.rpartition(".")[2]


def check_value(name: str, value: Any) -> Any:
    """A value brought to the type of the field `name`. Raises `UsageError` when its type or range is wrong."""
    converted = _convert(name, value)
    if problem := _problem(next(f for f in fields(RunConfig) if f.name == name), converted):
        raise UsageError(problem)
    return converted


def read_config(lines: Iterable[Line]) -> dict[str, Any]:
    """The settings in the lines of a file. Raises `UnknownName` and `UsageError` that name the line."""
    settings = {}
    for line in lines:
        with errors_at(line.where):
            name = field_name(line.key)
            if name in settings:
                raise UsageError(f"{name} was said before; leave one of the two out")
            settings[name] = check_value(name, line.value)
    return settings


def _convert(name: str, value: Any) -> Any:
    """Bring a value from Python, the command line or a file to the type of the field `name`. Raises `UsageError`."""
    value = value.tolist() if hasattr(value, "tolist") else value  # what NumPy and torch have
    kinds = typing.get_args(TYPES[name]) if isinstance(TYPES[name], types.UnionType) else (TYPES[name],)
    is_nothing = isinstance(value, str) and value.lower() in ("none", "null")
    if value is None or (is_nothing and types.NoneType in kinds):
        if types.NoneType in kinds:
            return None
        raise UsageError(f"{name} needs a value; one that is called so is written in quotes")
    kind = kinds[0]
    if kind is bool:
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if not isinstance(value, str | bool) or str(value).lower() not in words:
            raise UsageError(f"{name} must be true or false, and is {_given(value)}")
        return words[str(value).lower()]
    try:
        if kind is str:
            return _convert_text(name, value)
        if not isinstance(value, str | numbers.Real) or isinstance(value, bool):
            raise TypeError
        if kind is int and not isinstance(value, str) and value != int(float(value)):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        wanted = {int: "a whole number", float: "a number", str: "text"}[kind]
        raise UsageError(f"{name} must be {wanted}, and is {_given(value)}") from error


def _convert_text(name: str, value: Any) -> str:
    """A text, a number or a path as text; a list of them joined as the field `name` has it. Raises `TypeError`."""
    if isinstance(value, list | tuple | range) and value:
        is_box = name == "roi" and isinstance(value[0], numbers.Real)
        return ("," if is_box else JOINED.get(name, ",")).join(_convert_text(name, each) for each in value)
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    return str(value)


def _given(value: Any) -> str:
    """A value as it is shown, which may be of any size."""
    try:
        text = repr(value)
    except ValueError:  # Python's word for a number of too many digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _size(text: str | None) -> tuple[int, int] | None:
    """Height and width in pixels of `64` or `64x48`."""
    height, _, width = (text or "").partition("x")
    return (int(height), int(width or height)) if height else None


def _problem(f: "dataclasses.Field[Any]", value: Any) -> str | None:
    """What is wrong with a field's value, or None."""
    rule = f.metadata
    if f.name in ("image_size", "tile") and value is not None and not IMAGE_SIZE.fullmatch(value):
        return f"{f.name} must be pixels, as in 64 or 64x48 (height first), and is {value!r}"
    if f.name == "intensity" and value is not None and (wrong := _intensity_problem(value)):
        return (
            f"intensity must be LOW:HIGH, black and white in the files' own values, as in 0:4095, or percentiles of "
            f"them, as in p1:p99, and {wrong}"
        )
    if f.name == "roi" and value is not None and BOXES.fullmatch(value) and not are_boxes(boxes_of(value)):
        return (
            "roi must be an image file, white where to look, or boxes x,y,w,h in shares of the picture, as in "
            f"0.25,0.1,0.5,0.8, each of some width and height, within the picture, and is {value}"
        )
    if "choices" in rule and value not in rule["choices"]:
        return f"{f.name} must be one of {', '.join(map(str, rule['choices']))}, and is {value!r}"
    if "blank" in rule and not str(value).strip():
        return f"{f.name} must not be empty"
    if "longest" in rule and len(value) > rule["longest"]:
        return f"{f.name} must have {rule['longest']} characters at the most, and has {len(value):,}"
    if "low" in rule and value is not None and not rule["low"] <= value <= rule["high"]:
        return f"{f.name} must be {rule['range']}, and is {value}"
    return None


def _intensity_problem(text: str) -> str | None:
    """What is wrong with LOW:HIGH, or p1:p99."""
    if not (bounds := INTENSITY.fullmatch(text)):
        return f"is {text!r}"
    low, high = float(bounds["low"]), float(bounds["high"])
    if not -math.inf < low < high < math.inf:
        return f"in {text} black does not lie below white"
    return f"{text} goes beyond p0 and p100" if bounds["percentiles"] and not 0 <= low < high <= 100 else None
