"""The detector: made, kept, measured."""
