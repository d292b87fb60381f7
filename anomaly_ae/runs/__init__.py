"""The run folder, and how runs are found."""
