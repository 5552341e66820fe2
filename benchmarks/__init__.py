"""Measurements, run by hand: `python -m benchmarks NAME`. Each figure is a ratio within one invocation."""
