"""Where images come from: named data sets, the classes called normal, and the four disjoint sets."""
