"""``qig-runs``: what a store holds, one file a subcommand; docs/RUNS.md shows each."""
