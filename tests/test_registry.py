"""Construction by name or path, and the one line that a wrong name, option or table gets."""

import jax
import jax.numpy as jnp
import pytest

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors.wrappers.noise_guarded import GuardedState
from dynsel_jax.types import LOSS_NORMALIZATIONS, SampleTable, Selector
from tests.support import simulation

EXAMPLE = """
import jax.numpy as jnp
from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.types import Selection, Selector
def middle_losses(table, epochs, *, keep_fraction=0.5, centre=0.5):
  check_fraction("keep_fraction", keep_fraction)
  def init(key):
    return jnp.full(table.num_samples, jnp.inf, jnp.float32)
  def select(key, loss, epoch):
    seen = jnp.isfinite(loss)
    middle = jnp.nanquantile(jnp.where(seen, loss, jnp.nan), centre)
    score = jnp.where(seen, -jnp.abs(loss - middle), jnp.inf)
    return Selection(keep=ranking.top_fraction(key, score, keep_fraction)), {"middle_loss": middle}
  def observe(loss, signals):
    return memory.scatter(loss, signals, signals.loss)
  return Selector(init, select, observe)
"""
FACTORY = '''
from dynsel_jax.selectors import full
def mine(table, epochs, *, fraction=0.5, layers=2, name="a", verbose=False, sizes=(1, 2), limit=None):
  """A user's own."""
  return full.full(table, epochs)
def wrong(table, epochs):
  return 3
def around(selector, table, epochs, *, depth=1):
  return selector._replace(thin=lambda key, state, signals: depth)
def nothing(selector, table, epochs):
  return None
def normalized(table, epochs):
  return full.full(table, epochs)._replace(loss_normalization="mean_one")
'''


@pytest.fixture
def lab(tmp_path, monkeypatch):
  """A user's package on the path."""
  (tmp_path / "my_lab").mkdir()
  (tmp_path / "my_lab" / "__init__.py").touch()
  (tmp_path / "my_lab" / "methods.py").write_text(FACTORY)
  (tmp_path / "my_lab" / "broken.py").write_text("import a_package_that_is_not_installed\n")
  monkeypatch.syspath_prepend(tmp_path)
  return tmp_path


def create(name, table=None, epochs=8, /, **options):
  return selectors.create(name, simulation.table() if table is None else table, epochs, **options)


def labels(*values, num_classes=3):
  return SampleTable(len(values), jnp.array(values, jnp.int32), num_classes)


def test_the_registry_is_complete():
  for name, method in selectors.METHODS.items():
    assert isinstance(create(name), Selector)
    assert method.title and method.factory.__doc__
    assert method.arxiv == "-" or method.arxiv.replace(".", "").isdigit()
    assert method.level == ("batch" if create(name).thin else "epoch")
    assert create(name).loss_normalization in LOSS_NORMALIZATIONS


def test_defaults_are_the_keywords_of_the_factory(lab):
  assert selectors.defaults("infobatch") == {"prune_probability": 0.5, "full_data_from": 0.875}
  assert selectors.defaults("full") == {}
  assert selectors.defaults("my_lab.methods:mine")["sizes"] == (1, 2)


def test_the_normalization_of_the_loss_is_the_methods_own(lab):
  by_batch_size = {name for name in selectors.METHODS if create(name).loss_normalization == "batch_size"}
  assert by_batch_size == {"infobatch", "bls_infobatch", "repb"}
  assert create("my_lab.methods:mine").loss_normalization == "weight_sum"


def test_a_users_factory_is_found_by_its_path(lab):
  assert isinstance(create("my_lab.methods:mine", fraction=1, limit="any", sizes=[3]), Selector)


@pytest.mark.parametrize(
  "name, options, message",
  [
    ("infobach", {}, "selector.name='infobach' is not known; known: .*full, infobatch"),
    ("rs2", {"keep": 0.3}, "selector 'rs2' has no option 'keep'; its options: keep_fraction, replacement"),
    ("rs2", {"keep_fraction": "0.3"}, "selector.keep_fraction='0.3' must be a number"),
    ("rs2", {"keep_fraction": True}, "selector.keep_fraction=True must be a number"),
    ("rs2", {"keep_fraction": 0.0}, r"keep_fraction=0.0 must lie in \(0, 1\]"),
    ("rs2", {"replacement": 1}, "selector.replacement=1 must be True or False"),
    ("my_lab.methods:mine", {"layers": 2.5}, "selector.layers=2.5 must be an integer"),
    ("my_lab.methods:mine", {"name": 3}, "selector.name=3 must be a string"),
    ("my_lab.methods:mine", {"sizes": 3}, "selector.sizes=3 must be a tuple"),
    ("my_lab.methods:yours", {}, "module 'my_lab.methods' has no 'yours'"),
    ("my_lab.nowhere:mine", {}, "there is no module 'my_lab.nowhere'"),
    ("your_lab.methods:mine", {}, "there is no module 'your_lab'"),
    ("my_lab.methods:wrong", {}, "must return a Selector, not int"),
    ("my_lab.methods:normalized", {}, "loss_normalization='mean_one' is not known; known: batch_size, weight_sum"),
  ],
)
def test_wrong_names_and_options_are_named(lab, name, options, message):
  with pytest.raises(UserError, match=message) as caught:
    create(name, **options)
  assert "\n" not in str(caught.value)


def test_wrappers_are_put_around_in_their_order(lab):
  own = "my_lab.methods:around"
  selector = selectors.create("random", simulation.table(), 8, {own: {"depth": 3}, "noise_guarded": {"drop": 0.2}})
  assert isinstance(selector.init(jax.random.key(0)), GuardedState)
  assert selector.thin(None, selector.init(jax.random.key(0)), None) == 3
  selector = selectors.create("random", simulation.table(), 8, {"noise_guarded": {}, own: {}})
  assert selector.thin(None, None, None) == 1


@pytest.mark.parametrize(
  "wrapped_in, message",
  [
    ({"anealed": {}}, "wrap='anealed' is not known; known: annealed, class_balanced"),
    ({"annealed": {"lst": 0.1}}, "wrapper 'annealed' has no option 'lst'; its options: first, last"),
    ({"annealed": {"last": "all"}}, "wrapper.last='all' must be a number"),
    ({"annealed": {"last": 1.5}}, r"last=1.5 must lie in \[0, 1\]"),
    ({"my_lab.methods:none": {}}, "wrap='my_lab.methods:none': module 'my_lab.methods' has no 'none'"),
    ({"my_lab.methods:nothing": {}}, "wrap='my_lab.methods:nothing' must return a Selector, not NoneType"),
  ],
)
def test_wrong_wrappers_are_named(lab, wrapped_in, message):
  with pytest.raises(UserError, match=message) as caught:
    selectors.create("full", simulation.table(), 8, wrapped_in)
  assert "\n" not in str(caught.value)


def test_a_wrapper_that_makes_weights_decides_how_they_are_used():
  def normalization(name, *wrappers):
    return selectors.create(name, simulation.table(), 8, {wrapper: {} for wrapper in wrappers}).loss_normalization

  assert normalization("random") == normalization("random", "annealed") == "weight_sum"
  assert normalization("random", "rescaled", "annealed") == "batch_size"
  assert normalization("infobatch", "class_balanced", "noise_guarded", "warmed_up") == "batch_size"


def test_a_module_that_fails_to_import_keeps_its_own_error(lab):
  with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
    create("my_lab.broken:mine")


@pytest.mark.parametrize(
  "table, message",
  [
    (labels(0, 1, 3), r"table.labels contains 3, outside \[0, num_classes=3\)"),
    (labels(0, 1, -1), "table.labels contains -1, outside"),
    (labels(0, 2, 2), "contains no sample of class 1"),
    (labels(), "table.num_samples=0 must be greater than 0"),
    (labels(0, 1, 2)._replace(num_samples=4), r"table.labels has shape \(3,\) and type int32; it must be 4 integers"),
    (labels(0, 1, 2)._replace(labels=jnp.zeros(3)), "type float32; it must be 3 integers"),
    (
      labels(0, 1, 2)._replace(columns={"rarity": jnp.zeros(2)}),
      r"table.columns\['rarity'\] has shape \(2,\); it must .* each of the 3",
    ),
  ],
)
def test_wrong_tables_are_named(table, message):
  with pytest.raises(UserError, match=message) as caught:
    create("full", table)
  assert "\n" not in str(caught.value)


def test_epochs_must_be_positive():
  with pytest.raises(UserError, match="epochs=0"):
    create("full", None, 0)


def test_the_example_of_a_methods_file_works_as_it_stands(tmp_path, monkeypatch):
  (tmp_path / "my_example.py").write_text(EXAMPLE)
  monkeypatch.syspath_prepend(tmp_path)
  selector = create("my_example:middle_losses", keep_fraction=0.4, centre=0.5)
  history = simulation.run(simulation.compiled(selector), 4)
  assert [epoch.chosen.size for epoch in history] == [21] * 4
  first, second, third = (set(epoch.chosen) for epoch in history[:3])
  assert not first & second and len(first | second | third) == simulation.NUM_SAMPLES  # the unseen come first
  assert jax.tree.leaves(history[-1].state)[0].shape == (simulation.NUM_SAMPLES,)
  with pytest.raises(ValueError, match="keep_fraction"):
    create("my_example:middle_losses", keep_fraction=0.0)
