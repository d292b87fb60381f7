"""A detector as an MLflow model: image files' bytes in, a row with score and verdict for each out.

MLflow keeps this file with the model and runs it where the model is loaded. `anomaly_ae` has to be installed there.
It runs it where a model is logged, too, which need not wait two seconds for torch: what loads that is imported late.
"""

import io
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from PIL import Image

from anomaly_ae.errors import AnomalyAEError, DataError, one_line
from anomaly_ae.images.decode import FILE_FORMATS, LARGEST_PICTURE
from anomaly_ae.images.listing import NOT_KNOWN, Contents, Integers, Listing, Source

if TYPE_CHECKING:
    from anomaly_ae.detector.detector import Detector

SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # what MLflow sets where its server asks
MOST_SERVED = 4 * LARGEST_PICTURE  # of a request to a server; some six seconds for those that take longest
CONTENT = "content"  # the column that holds the files, called as in Spark's binaryFile
COLUMNS = ["score", "p_value", "threshold", "is_anomaly", "error", "regions"]


@dataclass(frozen=True)
class Cells(Source):
    """Files out of a table: where other sources have a file's path, this has what the file holds."""

    def list(self) -> Listing:
        return Listing.of([])

    def locate(self, path: bytes) -> bytes:
        return path

    def fetch(self, paths: Sequence[bytes], sizes: Integers) -> Contents:
        return [*paths]


class DetectorModel(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """A detector and the process that decodes for it, which stays for as long as the model does."""

    detector: "Detector"

    def load_context(self, context: Any) -> None:
        from anomaly_ae.detector.detector import Detector

        self.detector = Detector.load(Path(context.artifacts["detector"]))
        # one decoder, for engines run many models side by side
        self.decoders = self.detector.preprocessing.decoders(Cells("cells"), workers=1)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The rows, `COLUMNS`, of a frame with the column content; a bad image has an error, and None for the rest.

        params: `target_fpr`, a false-alarm rate to put in place of the detector's own
        Raises MLflow's own error, which its server answers with 400, when a cell is not bytes or the rate cannot be
        held, and in a server also when one is empty or all have more than `MOST_SERVED` pixels.
        """
        from anomaly_ae.scoring.rows import make_table, read_batches, score_batch

        try:
            listing = list_cells(model_input[CONTENT])
            if os.environ.get(SERVING) == "true":
                check_request(listing.paths)
            calibration = self.detector.calibration.as_asked((params or {}).get("target_fpr"))
        except AnomalyAEError as error:
            raise MlflowException(one_line(error), error_code=INVALID_PARAMETER_VALUE) from error
        rows = list[dict[str, Any]]()
        for batch in read_batches(self.decoders, self.detector, listing, few=True):
            results = score_batch(self.detector, listing, batch)
            rows += make_table([b""] * len(results), results, calibration).select(COLUMNS).to_pylist()
        # Its None becomes null in JSON; NaN and NA do not.
        return pd.DataFrame(rows, index=model_input.index, columns=COLUMNS, dtype=object)


def check_request(files: Sequence[bytes]) -> None:
    """Raise `DataError` for what no server should answer: a file that is empty, as MLflow makes it of text that is no
    base64, and pictures that would keep it from others for long.
    """
    if b"" in files:
        raise DataError(
            f"a cell of the column {CONTENT} is an image file in base64, and one is empty or no base64; encode the "
            "file's bytes, as with base64 -w0 a.png"
        )
    if (pixels := sum(map(count_pixels, files))) > MOST_SERVED:
        raise DataError(
            f"the pictures of a request may have {MOST_SERVED:,} pixels in all, and these have {pixels:,}; ask for "
            "fewer at a time"
        )


def count_pixels(file: bytes) -> int:
    """By its header; none where that says more than are ever decoded, or nothing."""
    with (
        suppress(Exception),
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(file), formats=FILE_FORMATS) as image,
    ):
        pixels = image.width * image.height
        return pixels if pixels <= LARGEST_PICTURE else 0
    return 0


def list_cells(cells: "pd.Series[Any]") -> Listing:
    """Files that a column holds, a missing one as an empty file. Raises `DataError` when one is not bytes."""
    files = [b"" if cell is None else cell for cell in cells]
    for file in files:
        if not isinstance(file, bytes | bytearray):
            raise DataError(
                f"a cell of the column {CONTENT} is what an image file holds, as bytes, and one is of type "
                f"{type(file).__name__}; read the files, as in Path(…).read_bytes()"
            )
    return Listing([*map(bytes, files)], np.array([*map(len, files)], np.int64), np.full(len(files), NOT_KNOWN))


set_model(DetectorModel())
