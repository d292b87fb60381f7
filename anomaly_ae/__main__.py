"""`python -m anomaly_ae`."""

from anomaly_ae.cli import run_and_leave

if __name__ == "__main__":
    run_and_leave()
