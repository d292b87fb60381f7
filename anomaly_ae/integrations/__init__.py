"""Other ways in to the same detector, one file each."""
