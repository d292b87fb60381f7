"""`python -m anomaly_ae`."""

from anomaly_ae.cli import main

if __name__ == "__main__":
    main()
