"""A selector's `reads` is exactly what it touches, and what is missing is refused in one line that says what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import selectors, tasks
from dynsel_jax.options import UserError
from dynsel_jax.selectors.wrappers import WRAPPERS
from dynsel_jax.training import checks
from dynsel_jax.types import SampleTable, Selector
from tests.support import simulation
from tests.support.simulation import EXTRAS, NUM_SAMPLES

TABLE = simulation.table()
EPOCHS = 3
SIGNALS = set(EXTRAS) - set(TABLE.columns)  # "el2n" is a column for `top`
CASES = (
  {name: (name, {}, ()) for name in selectors.METHODS}
  | {
    "top by class": ("top", {"class_balanced": True}, ()),
    "top of another column": ("top", {"column": "rarity"}, ()),
    "rrd of the whole set": ("rrd", {"class_balanced": False}, ()),
    "rrd without diversity": ("rrd", {"diversity": False}, ()),
    "rrd without either": ("rrd", {"representativeness": False, "diversity": False, "class_balanced": False}, ()),
    "kakurenbo balanced": ("kakurenbo", {}, ("class_balanced",)),
    "infobatch guarded": ("infobatch", {}, ("noise_guarded",)),
    "rcap guarded and balanced": ("rcap", {}, ("noise_guarded", "class_balanced")),
  }
  | {f"random {name}": ("random", {}, (name,)) for name in WRAPPERS}
)


def create(case, table=TABLE):
  method, options, names = CASES[case]
  wrapped_in = {name: {"first": 0.0} if name in ("annealed", "noise_guarded") else {} for name in names}
  return selectors.create(method, table, EPOCHS, wrapped_in, **options)


def whole_name(case):
  method, _, names = CASES[case]
  return "+".join((method, *names))


READS = [(case, name) for case in CASES for name in create(case).reads]


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_read_may_be_absent(case):
  """The simulation gives no extras that are not read, as training does; the table gives neither columns nor labels."""
  selector = create(case)
  assert len(set(selector.reads)) == len(selector.reads)
  part = create(case, simulation.part_of(TABLE, selector.reads))
  assert part.reads == selector.reads
  histories = [simulation.run(simulation.compiled(one), EPOCHS) for one in (selector, part)]
  for with_all, with_what_is_read in zip(*histories, strict=True):
    simulation.assert_epoch(with_what_is_read)
    simulation.assert_same(with_all, with_what_is_read)


@pytest.mark.parametrize("case, name", READS)
def test_each_name_that_is_read_is_needed(case, name):
  selector, others = create(case), [read for read in create(case).reads if read != name]
  if name in SIGNALS:
    extras = {extra: value for extra, value in simulation.signals([3]).extras.items() if extra != name}
    with pytest.raises(KeyError, match=name):
      selector.observe(selector.init(jax.random.key(0)), simulation.signals([3])._replace(extras=extras))
    with pytest.raises(UserError) as caught:
      selectors.check_reads(whole_name(case), selector, TABLE, extras, "the task gives others")
    assert str(caught.value) == f"selector={whole_name(case)} reads {name!r}: the task gives others"
  else:
    with pytest.raises(UserError) as caught:
      create(case, simulation.part_of(TABLE, others))
  line = str(caught.value)
  assert "\n" not in line
  assert f"selector={CASES[case][0]}" in line and name in line


def test_the_names_that_are_read_are_those_of_table_and_signals():
  for name, method in selectors.METHODS.items():
    reads = create(name).reads
    assert set(reads) <= {"labels", *TABLE.columns, *SIGNALS}
    assert selectors.columns(name) == tuple(read for read in reads if read in TABLE.columns)
    assert set(method.columns) <= set(selectors.columns(name))
    assert all(read in method.signal for read in reads if read in SIGNALS)


def test_two_methods_alone_need_labels():
  assert {name for name in selectors.METHODS if "labels" in create(name).reads} == {"rcap", "rrd"}


REGRESSION = tasks.Task("regression", None, (), 1, None, None, None)
CLASSIFICATION = REGRESSION._replace(name="classification", signals=EXTRAS)
UNLABELLED = TABLE._replace(labels=None, num_classes=0)
ONE_CLASS = TABLE._replace(labels=jnp.zeros(NUM_SAMPLES, jnp.int32), num_classes=1)
WITHOUT_COLUMNS = TABLE._replace(columns={})
NOTHING = SampleTable(NUM_SAMPLES)
LABELS = "reads labels, and the training set has none: give a class or a domain of each sample in table.labels, or"


@pytest.mark.parametrize(
  "case, table, message",
  [
    (
      "kakurenbo",
      NOTHING,
      "selector=kakurenbo reads 'correct', 'confidence': the task regression and the table give nothing but the loss;"
      " tasks that give 'correct': classification, language_model; tasks that give 'confidence': classification",
    ),
    (
      "random noise_guarded",
      WITHOUT_COLUMNS,
      "selector=random+noise_guarded reads 'margin': the task regression and the table give nothing but the loss; tasks"
      " that give 'margin': classification",
    ),
    ("random noise_guarded", NOTHING, f"selector=random+noise_guarded {LABELS} take a method that reads none"),
    ("random class_balanced", NOTHING, f"selector=random+class_balanced {LABELS} take a method that reads none"),
    ("rcap", NOTHING, f"selector=rcap {LABELS} take a method that reads none"),
    ("rrd", UNLABELLED, f"selector=rrd {LABELS} set class_balanced=False"),
    ("top by class", UNLABELLED, f"selector=top {LABELS} set class_balanced=False"),
    (
      "rcap",
      ONE_CLASS,
      "selector=rcap splits its budget among classes or domains and needs at least 2 of them; table.labels has 1 (take"
      " a method that reads no labels)",
    ),
    (
      "rrd",
      WITHOUT_COLUMNS,
      "selector=rrd reads the column 'representativeness', which the table does not have: name features, as in"
      " features=pixels",
    ),
    (
      "rho_loss",
      NOTHING,
      "selector=rho_loss reads the column 'irreducible_loss', which the table does not have: make it with"
      " experiments.score_dataset --scores=irreducible_loss and name its file in --config.scores.path",
    ),
    (
      "top",
      NOTHING,
      "selector=top: selector.column='el2n' is not a column of the table; it has: none (experiments.score_dataset makes"
      " columns)",
    ),
    (
      "dual",
      simulation.part_of(TABLE, ["dual", "aum"]),
      "selector=dual: column='label_probability' is not a column of the table; it has: aum, dual"
      " (experiments.score_dataset makes columns)",
    ),
  ],
)
def test_what_is_missing_is_refused_in_one_line_that_says_what_to_do(case, table, message):
  with pytest.raises(UserError) as caught:
    checks.check_reads(whole_name(case), create(case, table), table, REGRESSION)
  assert str(caught.value) == message


@pytest.mark.parametrize("case", CASES)
def test_what_is_there_is_not_refused(case):
  checks.check_reads(whole_name(case), create(case), TABLE, CLASSIFICATION)


def test_a_users_own_selector_is_held_to_what_it_says_that_it_reads():
  def init(key):
    del key
    return jnp.zeros(NUM_SAMPLES, bool)

  own = Selector(init, None, None, reads=("perplexity", "difficulty", "labels"))
  table = NOTHING._replace(columns={"difficulty": np.zeros(NUM_SAMPLES, np.float32)})
  with pytest.raises(UserError, match=r"^selector=mine reads 'perplexity', 'labels': ask the task$"):
    selectors.check_reads("mine", own, table, ["margin"], "ask the task")
  labelled = table._replace(labels=TABLE.labels, num_classes=TABLE.num_classes)
  selectors.check_reads("mine", own, labelled, ["margin", "perplexity"], "ask the task")
