"""Results as text for people, as the command line prints them; that `print` does so, too, is registered here."""

from anomaly_ae.reporting.text import detectors, listings, scored_folders  # noqa: F401 (they register their texts)
