"""From files to pixels: finding, decoding, preprocessing, statistics."""
