"""Paired differences over calibration seeds and images, their tests, and what a grid could have seen at all."""

from qig.report.statistics.crossed import Difference, compare
from qig.report.statistics.power import detectable, power

__all__ = ["Difference", "compare", "detectable", "power"]
