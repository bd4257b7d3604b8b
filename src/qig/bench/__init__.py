"""Benchmarks: ``qig-bench``. Time, memory and accuracy of a calibration, beside the published cost structure."""
