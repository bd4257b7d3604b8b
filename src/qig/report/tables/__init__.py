"""The table of an experiment: its cells as a tidy frame, and that frame as CSV, Markdown and LaTeX."""
