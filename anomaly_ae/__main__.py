"""`anomaly-ae`, and `python -m anomaly_ae`."""

from anomaly_ae.runtime.interrupts import leaving_at_once


def run() -> None:
    """The command line, which takes a moment to load."""
    with leaving_at_once():
        from anomaly_ae.cli import run_and_leave
    run_and_leave()


if __name__ == "__main__":
    run()
