"""The stages that commands and Python call: train, evaluate, calibrate, score, and running a pipeline file."""
