"""`python -m anomaly_ae.cli`."""

from anomaly_ae.cli import main

main()
