"""What a preset fills in where nothing else was said."""

from typing import Any

PRESET_BASE = {"autoencoder": "conv", "batch_size": 128, "patience": 20}
DEFAULT_PRESET = PRESET_BASE | {"scorer": "aligned-knn"}
AUTO, DEFAULT, SURFACE = "auto", "default", "surface"
PRESETS: dict[str, dict[str, Any]] = {
    AUTO: DEFAULT_PRESET,  # until the images are known, see `resolve`
    "fast": DEFAULT_PRESET | {"steps": 200},
    DEFAULT: DEFAULT_PRESET,
    SURFACE: {
        "autoencoder": "feature-conv",
        "scorer": "feature-error+2*patch-knn+0.5*defect",
        "augment": "flips+light",
        "patience": 60,
    },
    "surface-scratch": {
        "autoencoder": "repair",
        "scorer": "defect",
        "augment": "flips+light",
        "batch_size": 16,
        "patience": 60,
        "steps": 2000,
    },
}
