"""A page on this machine to look through a scored folder, move the threshold, and mark what is right."""
