"""The headline metric of a task: its name, unit and direction, and how its values are compared and shown."""

import math
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["ACCURACY", "Metric"]


class Metric(NamedTuple):
  """The metric by which a task is judged, measured on the test set."""

  name: str  # as in the field `test_<name>`, for example "accuracy"
  unit: str = ""  # "%" if the number is stored as a fraction in [0, 1]; "" if it has no unit
  larger_is_better: bool = True

  @property
  def words(self) -> str:
    """The name as it is written in a sentence."""
    return self.name.replace("_", " ")

  @property
  def title(self) -> str:
    """The name with the unit, for a table's column or a plot's axis."""
    return f"{self.words}, {self.unit}" if self.unit else self.words

  @property
  def scale(self) -> float:
    """The factor between the stored number and the one shown: 100 for "%", else 1."""
    return 100.0 if self.unit == "%" else 1.0

  def show(self, number: float | None) -> str:
    """Returns a value with its unit, "nan" for None."""
    if number is None:
      return "nan"
    return f"{number:.2%}" if self.unit == "%" else f"{number:.4f} {self.unit}".rstrip()

  def better(self, one: float, other: float) -> bool:
    """Whether `one` is better than `other`; any number is better than a nan."""
    if math.isnan(other):
      return not math.isnan(one)
    return one > other if self.larger_is_better else one < other

  def reaches(self, number: float, target: float) -> bool:
    """Whether `number` is as good as `target` or better; a nan never is."""
    return number >= target if self.larger_is_better else number <= target

  def best(self, numbers: Iterable[float]) -> float:
    """Returns the best of `numbers`, leaving out any nan; nan if none remains."""
    known = [number for number in numbers if not math.isnan(number)]
    return (max if self.larger_is_better else min)(known, default=math.nan)


ACCURACY = Metric("accuracy", "%", larger_is_better=True)
