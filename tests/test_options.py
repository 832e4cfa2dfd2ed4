"""The checks of values: which are accepted, and the line for the others."""

import math

import pytest

from dynsel_jax import options
from dynsel_jax.options import UserError


def _accepted(check, *values):
  accepted = []
  for value in values:
    try:
      check(value)
      accepted.append(value)
    except UserError as error:
      assert f"field={value} must" in str(error) and "\n" not in str(error)
  return accepted


@pytest.mark.parametrize(
  ("ends", "interval", "accepted"),
  [
    ({}, "(0, 1]", [0.5, 1]),
    ({"zero": True}, "[0, 1]", [0, 0.5, 1]),
    ({"zero": True, "one": False}, "[0, 1)", [0, 0.5]),
    ({"one": False}, "(0, 1)", [0.5]),
  ],
)
def test_a_fraction_includes_the_ends_that_are_asked_for(ends, interval, accepted):
  assert _accepted(lambda x: options.check_fraction("field", x, **ends), -0.1, 0, 0.5, 1, 1.1, math.nan) == accepted
  with pytest.raises(UserError) as error:
    options.check_fraction("field", 2.0, **ends)
  assert str(error.value) == f"field=2.0 must lie in {interval}"


def test_bounds_are_included_and_nan_is_refused():
  assert _accepted(lambda x: options.check_at_least("field", x, 3), 2, 3, 4, math.nan) == [3, 4]
  assert _accepted(lambda x: options.check_range("field", x, 1, 4), 0, 1, 4, 5, math.nan) == [1, 4]
  assert _accepted(lambda x: options.check_positive("field", x), -1, 0, 1e-9, math.inf, math.nan) == [1e-9]
  assert _accepted(lambda x: options.check_positive("field", x, zero=True), -1, 0, 1, math.nan) == [0, 1]


def test_a_path_to_what_cannot_be_called_is_refused():
  with pytest.raises(UserError, match="field='math:pi' must be a function, not float"):
    options.named_or_imported("field", "math:pi", {})
  assert options.named_or_imported("field", "math:sqrt", {}) is math.sqrt
