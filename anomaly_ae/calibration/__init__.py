"""From scores to p-values, thresholds, discoveries and drift."""
