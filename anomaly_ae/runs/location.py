"""Where runs are kept unless another place is named, and what a command needs to find them elsewhere."""

import os
from contextlib import suppress
from pathlib import Path

from anomaly_ae.errors import UsageError
from anomaly_ae.storage.atomic import expand


def runs_root(mlruns: str | None = None) -> Path:
    """The folder `mlruns` if given, else ANOMALY_AE_MLRUNS, else ./mlruns. Raises `UsageError`."""
    root = expand(mlruns or os.environ.get("ANOMALY_AE_MLRUNS") or "mlruns").absolute()
    return root.resolve() if ".." in root.parts else root


def place_settings(root: Path) -> dict[str, str]:
    """What a command needs to find runs in `root`; nothing where it looks there anyway."""
    with suppress(UsageError):  # here none can be kept
        if root == runs_root():
            return {}
    return {"mlruns": str(root)}
