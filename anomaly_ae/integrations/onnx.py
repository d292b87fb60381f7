"""A detector as one ONNX file: images in, reconstruction, score, p-value, verdict and heat map out.

All that follows decoding and resizing is in the graph. What is written has been compared with PyTorch before.
"""

import copy
import dataclasses
import io
import json
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly_ae.autoencoders.inference import batch_size, exact_float32
from anomaly_ae.calibration.conformal import Calibration
from anomaly_ae.calibration.group import Group
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.evaluation import Exported
from anomaly_ae.errors import ExportError, UsageError, install_extra
from anomaly_ae.images.intensity import FLOAT, WHITE, WHOLE, Intensity
from anomaly_ae.images.preprocessing import resize
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scorers.scorer import sample
from anomaly_ae.storage.atomic import expand, sha256, write_bytes
from anomaly_ae.storage.pixel_values import as_bytes, as_float

try:
    import onnxruntime
    from onnx_ir.passes.common import (
        ClearMetadataAndDocStringPass,
        CommonSubexpressionEliminationPass,
        RemoveUnusedNodesPass,
    )
    from onnxscript.optimizer import fold_constants
except ImportError as error:
    raise UsageError(f"{setting('format', 'onnx')} needs ONNX; {install_extra('onnx')}") from error

OPSET = 20
METADATA_FORMAT = 1  # of what the metadata say, for programs that go by it
DEEP_KINDS = {"whole": WHOLE, "floats": FLOAT}  # kinds of values of more than 8 bits, by their names there
WHOLE_PICTURE = ((0, 0, 1, 1),)  # as boxes
MOST_AT_ONCE, PIXELS_AT_ONCE = 16, 2**16  # images of a good batch, and the pixels of all of them
LARGEST_GRAPH = 2**31 - 2**24  # bytes of a protobuf, with some left for all that is no tensor
TOLERANCE, AS_EXACT = 1e-5, 4
IMAGES, RECONSTRUCTION, SCORE, HEAT_MAP = "images", "reconstruction", "score", "heat_map"
P_VALUE, IS_ANOMALY = "p_value", "is_anomaly"
REDUCTIONS = torch.ops.aten.mean.dim, torch.ops.aten.sum.dim_IntList, torch.ops.aten.std.correction
MANY = 64  # values of which a sum in float32 is no longer good enough
TINY = 1e-30  # keeps a deviation of nothing from being divided by nothing
TRIALS = 6  # images of each kind that the graph is compared on

Expected = dict[str, tuple[Tensor, Tensor]]  # by output: its values, and the scale of a deviation


class Graph(nn.Module):
    """What a detector does with images that are decoded and of its size, uint8 (N, C, H, W)."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector, self.network = detector, detector.network
        self.threshold = detector.threshold  # here, for it is worked out when it is first asked for

    @property
    def names(self) -> list[str]:
        """What the outputs are called, in their order."""
        return [RECONSTRUCTION, SCORE, P_VALUE, IS_ANOMALY, *([HEAT_MAP] if self.detector.map_scorer else [])]

    def forward(self, images: Tensor) -> list[Tensor]:
        detector, pixels = self.detector, as_float(images)
        outputs = self.network(pixels)
        score = detector.scorer.score(pixels, outputs)
        p, mapper = p_values(detector.calibration, score), detector.map_scorer
        heat = [] if mapper is None else [mapper.anomaly_map(pixels, outputs)]
        return [outputs.reconstruction, score, p, score > self.threshold, *heat]


def export_onnx(detector: Detector, output: str | Path) -> Exported:
    """Write a detector as an ONNX file, checked against PyTorch; a file that was there is replaced.

    The input `images` is uint8 (N, C, H, W) at the detector's size, of any N, as `Preprocessing` makes it of files.
    The outputs are `reconstruction`, float32 (N, C, H, W), `score`, float32 (N,), `p_value`, float64 (N,),
    `is_anomaly`, bool (N,), and, where the scorer has one, `heat_map`, float32 (N, H, W): as `Detector` has them. The
    file's metadata say what it is, see `metadata`.

    Raises `UsageError` when the file's name is none for it, or a scorer cannot be in a graph, `ExportError` when the
    graph computes something else than the detector; nothing is written then.
    """
    path = check_onnx_file(output)
    check_detector(detector)
    detector = converted(detector)
    with stage("making the graph"):
        content = make_graph(detector)
    with stage("comparing it with PyTorch"):
        images, session = trial_images(detector), open_session(content)
        deviations = check(session, detector, images)
    write_bytes(path, content)
    inputs, outputs = (
        {each.name: _kind(each) for each in ends} for ends in (session.get_inputs(), session.get_outputs())
    )
    return Exported(str(path), inputs, outputs, len(images), deviations, detector.threshold, OPSET, len(content))


def check_onnx_file(output: str | Path) -> Path:
    """Where the output is meant to be. Raises `UsageError` when it is not called as ONNX files are, is a folder, or
    would be in none.
    """
    output = expand(output)
    if output.suffix.lower() != ".onnx" or output.is_dir():
        raise UsageError(f"a graph is written as ONNX, and {output} was named; name a file, as in detector.onnx")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {output.parent} for {output.name}; make it, or name another one")
    return output


def check_detector(detector: Detector) -> None:
    """Raise `UsageError` when a detector has too much for a graph."""
    size = sum(tensor.nbytes for tensor in (detector.network.state_dict() | detector.scorer.state()).values())
    if size > LARGEST_GRAPH:
        raise UsageError(
            f"an ONNX file holds 2 GB at the most, and the network with what scorer {detector.config.scorer} "
            f"remembers has {size / 1e9:.1f} GB; train with a smaller {setting('image_size')} or another "
            f"{setting('scorer')}"
        )


def converted(detector: Detector, kind: torch.dtype = torch.float32) -> Detector:
    """The same detector on the CPU, of floating-point numbers of that kind."""
    config = detector.config
    scorer = build_scorer(str(config.scorer), config.top_fraction, config.folds)
    state = detector.scorer.state().items()
    scorer.load_state({name: x.to("cpu", kind if x.is_floating_point() else x.dtype) for name, x in state})
    network = copy.deepcopy(detector.network).to("cpu", kind).eval()
    return dataclasses.replace(detector, network=network, scorer=scorer)


@torch.no_grad()
def make_graph(detector: Detector) -> bytes:
    """A detector, on the CPU, as the content of an ONNX file."""
    example = torch.zeros(3, *detector.preprocessing.shape, dtype=torch.uint8)
    with (
        warnings.catch_warnings(action="ignore"),
        redirect_stdout(io.StringIO()),  # PyTorch's exporter says much on the way
        torch.autocast("cpu", enabled=False),  # the tracer refuses flags of single operators
    ):
        whole = Graph(detector)
        program = torch.export.export(whole, (example,), dynamic_shapes={IMAGES: {0: torch.export.Dim("N")}})
        program = program.run_decompositions({each: _in_double(each) for each in REDUCTIONS})
        graph = torch.onnx.export(
            program,
            dynamic_shapes={IMAGES: {0: "N"}},
            output_names=whole.names,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        assert graph is not None
        # Its own optimiser takes ten times as long for what a runtime does when it loads the file.
        CommonSubexpressionEliminationPass()(graph.model)
        fold_constants(graph.model)
        for tidy in (CommonSubexpressionEliminationPass, RemoveUnusedNodesPass, ClearMetadataAndDocStringPass):
            tidy()(graph.model)
    graph.model.producer_name = "anomaly-ae"
    graph.model.metadata_props.update(metadata(detector))
    content: bytes = graph.model_proto.SerializeToString()
    return content


def _in_double(operator: Any) -> Callable[..., Tensor]:
    """The operator for a graph, in float64 where it adds up many values, for runtimes add one after the other."""

    def reduce(values: Tensor, dims: Sequence[int], *args: Any, **kwargs: Any) -> Tensor:
        count = math.prod(values.shape[dim] for dim in dims)
        if values.dtype != torch.float32 or count < MANY:
            return NotImplemented  # type: ignore[no-any-return]  # it stays as it is
        total: Tensor = operator(values.double(), dims, *args, **kwargs)
        return total.float()

    return reduce


def metadata(detector: Detector) -> dict[str, str]:
    """What a file's metadata say of the detector, each as JSON, for whoever has the file alone. Beside what they are
    called: `levels`, what is black and white in files of more than 8 bits, `looked_at`, the boxes of the region of
    interest, left, top, right and bottom in shares of a picture, and `batch`, how many images are a good batch.
    """
    calibration, config = detector.calibration, detector.config
    preprocessing = dataclasses.asdict(detector.preprocessing)
    preprocessing["fit"] = preprocessing.pop("resize_mode")  # as programs know it that read such files
    _, height, width = detector.preprocessing.shape
    roi = detector.preprocessing.roi
    facts = {
        "format": METADATA_FORMAT,
        "threshold": detector.threshold,
        "target_fpr": calibration.target_fpr,
        "guarantee": calibration.guarantee,
        "calibration_images": len(calibration.scores),
        "calibration_groups": [len(group) for group in calibration.by_group],
        "calibration_sha256": sha256(calibration.scores.numpy().tobytes()),
        "preprocessing": preprocessing,
        "levels": {name: _range_of(kind, detector.preprocessing.intensity) for name, kind in DEEP_KINDS.items()},
        "looked_at": [(x, y, x + across, y + down) for x, y, across, down in (roi.boxes if roi else WHOLE_PICTURE)],
        "batch": max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (height * width))),
        "autoencoder": config.autoencoder,
        "scorer": config.scorer,
        "dataset": config.dataset,
        "classes": detector.classes,
        "normal": detector.normal,
        "heat_level": detector.heat_level,
        "heat_peaks": None if detector.heat_peaks is None else detector.heat_peaks.tolist(),
        "detector_sha256": detector.digest,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}


def _range_of(kind: str, intensity: Intensity | None) -> tuple[float, float]:
    """Black and white in files of a kind."""
    return (intensity.low, intensity.high) if intensity and intensity.kind == kind else (0, WHITE[kind])


def p_values(calibration: Calibration, scores: Tensor) -> Tensor:
    """`Calibration.p_values` by what a graph can do, float64 (N,), of scores, float32 (N,); NaN of NaN."""
    largest = reduce(torch.maximum, [_p_values(group, scores) for group in calibration.by_group])
    return torch.where(scores.isnan(), torch.nan, largest)


def _p_values(group: Group, scores: Tensor) -> Tensor:
    """`Group.p_values`; anything of NaN."""
    reached = len(group) - (group.scores < scores[:, None]).sum(dim=1)  # (N, n) -> (N,)
    if group.chosen is not None:
        one_step_up = reached.clamp_min(group.least_reached)
        reached = torch.where(scores > group.chosen, reached, one_step_up)
    p = torch.from_numpy(group.levels)[reached]
    if group.tail is None:
        return p
    tail = group.tail
    excess = ((scores.double() - tail.start) / tail.scale).clamp_min(0)
    survival = (1 + tail.shape * excess) ** (-1 / tail.shape) if tail.shape else torch.exp(-excess)
    return torch.where(scores > tail.start, (tail.share * survival).clamp_min(np.finfo(float).tiny), p)


@torch.inference_mode()
def trial_images(detector: Detector) -> Tensor:
    """Images, uint8 (M, C, H, W), that are to find a graph out: of one colour, almost black, noise, smooth ones, what
    the network makes of these, which looks like what it was trained on, and fit images where the scorer keeps any, a
    pixel to the right, for the distance of one to itself is nothing but rounding.
    """
    (channels, *size), draw = detector.preprocessing.shape, torch.Generator().manual_seed(0)
    flat = torch.tensor([0.0, 0.5, 1.0]).view(-1, 1, 1, 1).expand(-1, channels, *size)
    noise = torch.rand(TRIALS, channels, *size, generator=draw)
    small = torch.rand(TRIALS, channels, 4, 4, generator=draw)
    smooth = functional.interpolate(small, size, mode="bilinear")
    made = as_bytes(torch.cat([flat, noise, noise**20, smooth]))
    rebuilt = detector.network(as_float(made[-TRIALS:])).reconstruction
    kept = [part.learned["images"] for part in detector.scorer.iter_parts() if "images" in part.learned]
    shifted = [resize(images[sample(len(images), TRIALS)], (size[0], size[1])).roll(1, -1) for images in kept]
    return torch.cat([made, as_bytes(rebuilt), *shifted])


def open_session(content: bytes) -> Any:
    """What runs an ONNX file of that content, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def check(session: Any, detector: Detector, images: Tensor) -> dict[str, float]:
    """The largest relative deviation of each output from what a detector says of images, uint8 (M, C, H, W), one by
    one and many at a time. It is that of reconstructions from their range, 1; of a score from itself or, if larger,
    from the median of the calibration scores; of a heat map from its largest value or, if larger, from `heat_level`.
    P-values and verdicts are compared with those that the detector gives to the graph's scores.

    Raises `ExportError` when one is larger than `TOLERANCE`, and than `AS_EXACT` times what PyTorch's own float32
    deviates from float64 by: where rounding decides, as in the contrast of what has none, no more can be asked.
    """
    expected = _expect(detector, images)
    deviations = dict.fromkeys([*expected, P_VALUE, IS_ANOMALY], 0.0)
    for size in (1, min(len(images), batch_size(*images.shape[-2:]))):
        outputs = _run(session, images, size)
        p, verdicts = detector.p_values(outputs[SCORE]), outputs[SCORE] > detector.threshold
        following = {P_VALUE: (p, p), IS_ANOMALY: (verdicts, torch.tensor(1.0))}
        for name, (value, scale) in (expected | following).items():
            deviations[name] = max(deviations[name], _deviation(outputs[name], value, scale))
    rounded = rounding(detector, images, expected) if max(deviations.values()) > TOLERANCE else {}
    for name, deviation in deviations.items():
        if deviation > max(TOLERANCE, AS_EXACT * rounded.get(name, 0)):
            raise ExportError(
                f"the graph's {name} deviates from the detector's by {deviation:.1e}, relative, where "
                f"{TOLERANCE:.0e} is allowed; nothing was written; score with anomaly-ae, or train with another "
                f"{setting('scorer')}"
            )
    return deviations


def rounding(detector: Detector, images: Tensor, expected: Expected) -> dict[str, float]:
    """The largest relative deviation of what is expected from the same in float64."""
    exact = _expect(converted(detector, torch.float64), images, torch.float64)
    return {name: _deviation(value, exact[name][0].float(), scale) for name, (value, scale) in expected.items()}


@torch.inference_mode()
def _expect(detector: Detector, images: Tensor, kind: torch.dtype = torch.float32) -> Expected:
    """What the outputs should be, and what a deviation is relative to."""
    with exact_float32("cpu"):
        parts = torch.split(as_float(images).to(kind), batch_size(*images.shape[-2:]))
        passed = [(pixels, detector.network(pixels).map_tensors(lambda tensor: tensor.to(kind))) for pixels in parts]
    score = torch.cat([detector.scorer.score(*each) for each in passed])
    median = detector.calibration.scores.abs().median()
    expected = {
        RECONSTRUCTION: (torch.cat([outputs.reconstruction for _, outputs in passed]), torch.tensor(1.0)),
        SCORE: (score, score.abs().clamp_min(median)),
    }
    if detector.map_scorer is not None:
        heat = torch.cat([detector.map_scorer.anomaly_map(*each) for each in passed])
        expected[HEAT_MAP] = heat, heat.abs().amax(dim=(1, 2), keepdim=True).clamp_min(detector.heat_level or 0)
    return expected


def _run(session: Any, images: Tensor, size: int) -> dict[str, Tensor]:
    """The outputs for all images, `size` at a time."""
    names = [output.name for output in session.get_outputs()]
    parts = [session.run(names, {IMAGES: part.numpy()}) for part in torch.split(images, size)]
    return {name: torch.from_numpy(np.concatenate(each)) for name, *each in zip(names, *parts, strict=True)}


def _deviation(actual: Tensor, expected: Tensor, scale: Tensor) -> float:
    """The largest relative one; infinite where a value is no number, or the shapes differ."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return math.inf
    relative = (actual.double() - expected.double()).abs() / scale.double().clamp_min(TINY)
    return float(relative.nan_to_num(math.inf).max())


def _kind(value: Any) -> str:
    """Type and shape of an input or output, as in `uint8 (N, 1, 28, 28)`."""
    kind = {"tensor(float)": "float32", "tensor(double)": "float64"}.get(value.type, value.type[7:-1])
    return f"{kind} ({', '.join(map(str, value.shape))})"
