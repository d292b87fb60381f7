"""Presets: what is filled in where nothing was said."""

from typing import Any

# What a preset fills in where nothing else was said
PRESET_BASE = {"autoencoder": "conv", "batch_size": 128, "patience": 20}


PRESETS: dict[str, dict[str, Any]] = {
    "fast": PRESET_BASE | {"scorer": "relative+latent-knn"},
    "default": PRESET_BASE | {"scorer": "aligned-knn"},
    "surface": {
        "autoencoder": "repair",
        "scorer": "defect",
        "augment": "flips+light",
        "batch_size": 16,
        "patience": 60,
        "steps": 2000,
    },
}
