"""What is said of a run that keeps another fraction than its config names, and when nothing is."""

import pytest

from configs import digits
from dynsel_jax.training import nominal


def config(variants="selector=random", **fields):
  made = digits.get_config(variants)
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
  return made


@pytest.mark.parametrize(
  ("size", "info", "said"),
  [
    (300, {}, False),
    (350, {}, False),
    (530, {}, True),
    (200, {}, True),
    (1000, {}, False),  # an epoch on everything, as annealing has
    (900, {"full_data": True}, False),  # the same behind a wrapper that keeps a few samples out
    (900, {"full_data": False}, True),
    (500, {"volume": 500}, False),  # as `pods` asked for
  ],
)
def test_an_epoch_far_from_the_nominal_fraction_is_told_unless_it_takes_the_full_data(size, info, said):
  line = nominal.of_epoch(config(selector__keep_fraction=0.3), size, 1000, 4, info)
  assert bool(line) == said
  assert not said or "of the training set in epoch 5, where selector.keep_fraction=0.3: " in line


def test_a_run_of_few_epochs_is_told_why_it_kept_more_and_which_fields_change_it():
  made = config("selector=rrd,wrap=annealed", selector__keep_fraction=0.3, epochs=3)
  assert nominal.of_run(made, 0.533, 1) == (
    "selector=rrd kept 53.3% of the training set per epoch on average, where selector.keep_fraction=0.3: 1 of 3 epochs"
    " took the full data; selector.refinement, wrappers.annealed.first, wrappers.annealed.last or more epochs change"
    " that"
  )


@pytest.mark.parametrize(("realised", "full_epochs"), [(0.33, 1), (0.53, 0)])
def test_a_run_near_it_or_one_whose_epochs_were_told_already_is_not(realised, full_epochs):
  assert not nominal.of_run(config("selector=rrd", selector__keep_fraction=0.3), realised, full_epochs)


def test_a_method_without_a_fraction_has_none_to_miss():
  made = config("selector=infobatch")
  assert not nominal.of_epoch(made, 200, 1000, 0, {}) and not nominal.of_run(made, 0.2, 3)
