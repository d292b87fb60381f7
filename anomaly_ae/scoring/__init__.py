"""A detector at work on image files: scoring them, as rows or as a job with a ledger, and encoding them."""
