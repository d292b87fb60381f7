"""The stages that commands and Python call: train, evaluate, calibrate, score, and running a pipeline file."""

from anomaly_ae.reporting import text  # noqa: F401 (results print as it says)
