"""Presets: what is filled in where nothing was said."""

from typing import Any

# What a preset fills in where nothing else was said
USUAL = {"autoencoder": "conv", "batch_size": 128, "patience": 20}


PRESETS: dict[str, dict[str, Any]] = {
    "fast": USUAL | {"scorer": "relative+latent-knn"},
    "default": USUAL | {"scorer": "aligned-knn"},
    "surface": {
        "autoencoder": "repair",
        "scorer": "defect",
        "augment": "flips+light",
        "batch_size": 16,
        "patience": 60,
        "steps": 2000,
    },
}
