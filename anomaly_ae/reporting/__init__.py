"""What was trained, side by side: as a list, run against run, and the cells of a pipeline."""
