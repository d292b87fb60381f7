"""What was asked: settings, and pipeline files that name many."""
