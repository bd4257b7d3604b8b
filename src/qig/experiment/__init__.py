"""Whole experiments: what a YAML in ``experiments/`` declares, the jobs it stands for, and their runs in the store.

``docs/EXPERIMENTS.md`` says how one is written.
"""
