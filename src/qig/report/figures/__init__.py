"""Figures. Each kind is a module with ``data``, a tidy frame of all that is drawn, and ``draw``, it as a figure.

The frame is kept beside the picture as CSV, and the picture is drawn from that file: whoever has the CSV can draw the
same bytes again (``python -m qig.report.figures redraw FOLDER``).
"""

OF_SAMPLE = ("token_sensitivity", "token_image")
"""Kinds that show one calibration sample of a run: ``data(run, sample)``."""
OF_RUN = ("search_curves", "score_distribution")
"""Kinds that show one run: ``data(run)``."""
OF_SWEEP = ("method_differences", "accuracy_bits", "calibration_cost", "completeness_nodes")
"""Kinds that compare runs."""
KINDS = (*OF_SAMPLE, *OF_RUN, *OF_SWEEP, "activation_magnitude", "massive_tokens")
