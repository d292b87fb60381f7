"""`python -m anomaly_ae.cli`."""

from anomaly_ae.cli import run_and_leave

run_and_leave()
