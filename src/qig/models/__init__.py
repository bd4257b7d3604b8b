"""Checkpoints, the architecture table, and the embedded tiny models."""
