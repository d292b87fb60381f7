"""Results as text for people, as the command line prints them; that `print` does so, too, is registered here."""

from anomaly_ae.reporting.text.detectors import calibrated, evaluated, exported, trained
from anomaly_ae.reporting.text.listings import (
    COMPARISON_NOTE,
    autoencoders,
    compared,
    deletable,
    deleted,
    layers,
    listed,
    listed_runs,
    narrow_scorers,
    promoted,
    set_side_by_side,
    settings_side_by_side,
    side_by_side,
)
from anomaly_ae.reporting.text.scored_folders import encoded, scored, scored_rows, unscored_rows

__all__ = [
    "COMPARISON_NOTE",
    "autoencoders",
    "calibrated",
    "compared",
    "deletable",
    "deleted",
    "encoded",
    "evaluated",
    "exported",
    "layers",
    "listed",
    "listed_runs",
    "narrow_scorers",
    "promoted",
    "scored",
    "scored_rows",
    "set_side_by_side",
    "settings_side_by_side",
    "side_by_side",
    "trained",
    "unscored_rows",
]
