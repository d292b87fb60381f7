"""MLflow, all of it, and nowhere else: the mirror of the run folders, and its pages in the browser."""
