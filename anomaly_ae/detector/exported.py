"""A detector as one file for other runtimes."""

from dataclasses import dataclass

from anomaly_ae.runtime.printed import Printed


@dataclass(frozen=True)
class Exported(Printed):
    """What an export came to.

    file:       where it is
    inputs:     type and shape of each input, by name, as in `uint8 (N, 1, 28, 28)`; outputs: likewise
    images:     how many the graph was compared with PyTorch on
    deviations: of each output that is a measure, the largest relative deviation, see `check`
    threshold:  the score above which an image is anomalous
    opset:      ONNX's, of the graph
    bytes:      of the file
    """

    file: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    images: int
    deviations: dict[str, float]
    threshold: float
    opset: int
    bytes: int
