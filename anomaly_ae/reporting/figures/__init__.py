"""Every picture: what training, evaluation and comparison draw, as matplotlib figures and as image grids."""
