"""Every config in every variant can be built; the variants' words are checked."""

import ast
import functools
import importlib
import itertools
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import data, models, offline, options, recipes, selectors, tasks
from dynsel_jax.data import gather, image_ops, source, stream
from dynsel_jax.offline import factor_stage, proxy_ranks, score_file
from dynsel_jax.runs import timing
from dynsel_jax.selectors import wrappers
from dynsel_jax.training import optimizers, parallel, schedules, setup, steps
from dynsel_jax.types import SampleTable
from tests.support import ROOT, image_sets, language, small_runs

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "base"))

SHAPES = {  # of a data set's inputs, and its number of classes
  "cifar10": ((32, 32, 3), 10),
  "cifar100": ((32, 32, 3), 100),
  "digits": ((8, 8, 1), 10),
  "fashion_mnist": ((28, 28, 1), 10),
  "folder": ((64, 64, 3), 200),
}


TEXTS = {"banking77": 77, "glue": 2, "goemotions": 4, "rsd15k": 4, "text": 5}  # numbers of classes
OF_TOKENS = ("conversations", "documents")  # data sets of language models


def _standing_in(section, module):
  """A data set of the right shapes with 600 samples of noise."""
  dataset = section.name
  generator = np.random.default_rng(0)
  if dataset == "diabetes":
    split = {"inputs": generator.random((600, 10), np.float32), "targets": generator.random(600, np.float32)}
    return data.from_arrays(dataset, split, split)
  num_classes = 7 if dataset in OF_TOKENS else TEXTS.get(dataset) or SHAPES[dataset][1]
  labels = (np.arange(600) % num_classes).astype(np.int32)
  about = {"num_classes": num_classes, "fingerprint": "0" * 64, "inputs_fingerprint": "0" * 64}
  if dataset in TEXTS:
    split = {"inputs": np.full((600, section.max_length), 5, np.int32), "labels": labels}
    lengths = (section.max_length // 2, section.max_length)
    text = source.Text(("",) * 600, module.sizes.pad_id, module.sizes.vocabulary, lengths)
    return data.Source(dataset, split, split, **about, text=text)
  if dataset in OF_TOKENS:
    split = {"inputs": np.full((600, section.max_length), 5, np.int32), "labels": labels}
    split["targets"] = np.ones(split["inputs"].shape, bool)
    text = source.Text(("",) * 600, module.sizes.pad_id, 300, (section.max_length,))
    return data.Source(dataset, split, split, **about, text=text)
  shape, _ = SHAPES[dataset]
  channels = shape[-1]
  about |= {"mean": (0.5,) * channels, "std": (0.2,) * channels}
  if section.get("stream"):
    encoded = image_sets.encoded(np.zeros((8, 8, 3), np.uint8))
    view = image_ops.View(section.image_size, section.resize, section.image_mode)
    images = stream.Images(600, lambda index: encoded.getvalue(), str, view, corrupt_limit=0)
    split = {"inputs": images, "labels": labels}
    return data.Source(dataset, split, split, **about)
  split = {"inputs": generator.integers(0, 256, (600, *shape), np.uint8), "labels": labels}
  return data.Source(dataset, split, split, **about)


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def _shallow(name, *arguments, create=models.create, **settings):
  """A model with two of its equal layers, if it is made of such, since each takes its time to trace."""
  module = create(name, *arguments, **settings)
  sizes = {name: getattr(module, name, None) for name in ("sizes", "encoder", "decoder")}
  return module.clone(**{name: held._replace(layers=min(held.layers, 2)) for name, held in sizes.items() if held})


@pytest.fixture
def built(monkeypatch):
  """Returns a function that builds a config's run on the data set's stand-in, with shapes for the initial state."""
  monkeypatch.setattr(models, "create", _shallow)
  monkeypatch.setattr(parallel.Devices, "build", lambda self, function, *rest: jax.eval_shape(function, *rest))
  scores = {name: jnp.linspace(0.0, 1.0, 600) for name in factor_stage.COLUMNS}
  stage = types.SimpleNamespace(columns=scores, firings=types.SimpleNamespace(_asdict=dict))
  monkeypatch.setattr(factor_stage, "Stage", lambda *_: stage)
  read = {column: jnp.linspace(0.0, 1.0, 600) for name in selectors.METHODS for column in selectors.columns(name)}
  monkeypatch.setattr(score_file, "read_columns", lambda *_: read)
  monkeypatch.setattr(proxy_ranks, "columns", lambda *_: {})  # as if the file had them

  def build(name, variants):
    made = importlib.import_module(f"configs.{name}").get_config(variants).lock()
    if made.dataset.name in TEXTS:
      assert made.model.weights == made.dataset.tokenizer != ""
      made.model.weights = ""  # they need not be on this machine
    if made.dataset.name in OF_TOKENS and "weights" in made.model:
      assert made.model.weights == made.dataset.tokenizer
      made.model.weights = ""
    made.batch_size = min(made.batch_size, 600)
    source = _standing_in(made.dataset, models.create(made.model.name, 2))
    parts = setup.parts(made, source, jax.devices()[:1])
    columns, _ = offline.columns(made, source, timing.Timers())
    return setup.build(parts, setup.table_of(source, columns))

  return build


@pytest.mark.parametrize("size", ["full", "cpu"])  # smoke differs from cpu in its epochs
@pytest.mark.parametrize("name", NAMES)
def test_every_size_can_take_a_step(name, size, built):
  run = built(name, f"size={size}")
  step = jax.ShapeDtypeStruct((), jnp.int32)
  arrays = run.arrays
  if isinstance(arrays.train, gather.Rows):  # as one device sees it
    arrays = arrays._replace(train=jax.tree.map(lambda rows: rows[0], arrays.train))
  after = jax.eval_shape(functools.partial(steps.train, run.recipe), run.initial, arrays, step, step, step)
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, run.initial)


@pytest.mark.parametrize("name", ["cifar100", "digits"])
@pytest.mark.parametrize("selector", list(selectors.METHODS))
def test_every_method_can_be_built(name, selector, built):
  assert built(name, f"selector={selector},size=cpu").recipe.selector.select is not None


def _few(source, batch_size):
  """The first samples of a data set, and one of each class at least."""
  rows = np.arange(min(max(300, batch_size), source.num_samples))
  if source.labels is not None:
    rows = np.union1d(rows, np.unique(source.labels, return_index=True)[1])
  train = {name: array[rows] for name, array in source.train.items()}
  test = {name: array[:100] for name, array in source.test.items()}
  true_labels = None if source.true_labels is None else source.true_labels[rows]
  return source._replace(train=train, test=test, true_labels=true_labels)


@pytest.mark.parametrize("name", NAMES)
def test_every_smoke_variant_trains(name, tmp_path, monkeypatch):
  monkeypatch.setattr(models, "create", _shallow)
  made = importlib.import_module(f"configs.{name}").get_config("size=smoke")
  if made.dataset.name in TEXTS:
    small_runs.planted_texts(made, tmp_path)
    made.dataset.length_buckets = 2  # a branch of the step's program each
    made.model.layers = 1
  if made.dataset.name in OF_TOKENS:
    for split, count in (("train", 80), ("test", 20)):
      write = language.documents if made.dataset.name == "documents" else language.conversations
      made.dataset[split] = write(tmp_path / f"{split}.jsonl", count)
  try:
    source = data.prepare(made.dataset.to_dict(), made.cache_dir)
  except options.UserError as error:
    if "is not prepared" in str(error) or "must be a folder" in str(error):
      pytest.skip(str(error))
    raise
  source = source if source.text else _few(source, made.batch_size)
  if "width" in made.model:
    made.model.width = 8  # with fewer samples: the whole would take minutes
  summary, _ = small_runs.train(made, tmp_path / "run", prepare=lambda *_: source)
  assert 0 < summary["steps"] <= 40
  assert np.isfinite(small_runs.lines(tmp_path / "run")[-1]["train_loss"])


@pytest.mark.parametrize("size", ["full", "cpu", "smoke"])
@pytest.mark.parametrize("name", NAMES)
def test_every_size_builds_a_config_whose_parts_exist(name, size):
  made = importlib.import_module(f"configs.{name}").get_config(f"size={size}").lock()
  for section, room in (
    (made.model, models),
    (made.selector, selectors),
    (made.optimizer, optimizers),
    (made.schedule, schedules),
    (made.task, tasks),
  ):
    known = room.defaults(section.name)
    assert set(known) <= set(section.keys()) <= {"name", "dtype", *known}
  assert made.keys() == recipes.get_config("x", model="mlp").keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_a_variant_of_every_config(name):
  for selector in selectors.METHODS:
    made = importlib.import_module(f"configs.{name}").get_config(f"selector={selector},size=cpu")
    assert made.selector.to_dict() == {"name": selector, **selectors.defaults(selector)}


@pytest.mark.parametrize("name", NAMES)
def test_wrappers_are_a_variant_of_every_config(name):
  names = tuple(reversed(wrappers.WRAPPERS))
  made = importlib.import_module(f"configs.{name}").get_config(f"size=cpu,wrap={'+'.join(names)}")
  assert made.wrappers.to_dict() == {"names": names, **{wrapper: wrappers.defaults(wrapper) for wrapper in names}}


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_and_schedule_is_a_variant_of_every_config(name):
  for optimizer, schedule, size in itertools.product(optimizers.OPTIMIZERS, schedules.SCHEDULES, ("full", "cpu")):
    variants = f"optimizer={optimizer},schedule={schedule},size={size}"
    made = importlib.import_module(f"configs.{name}").get_config(variants)
    assert set(made.optimizer.keys()) == {"name", *optimizers.defaults(optimizer)}, variants
    assert set(made.schedule.keys()) == {"name", *schedules.defaults(schedule)}, variants


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["full", "cpu", "smoke"])
def test_batches_can_be_shared_by_eight_devices(name, size):
  made = importlib.import_module(f"configs.{name}").get_config(f"size={size}")
  assert made.batch_size % 8 == made.eval_batch_size % 8 == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_its_command(name):
  text = pathlib.Path(ROOT, "configs", f"{name}.py").read_text()
  assert f"python -m experiments.train --config=configs/{name}.py" in text


@pytest.mark.parametrize(
  ("variants", "line"),
  [
    ("size=huge", "size='huge' is not known; known: cpu, full, smoke"),
    ("sise=cpu", "config variant='sise' is not known"),
    ("cpu", "config variant 'cpu' is not key=value"),
    ("selector=nothing", "'nothing'"),
    ("model=vgg1", "mlp, resnet18"),
    ("schedule=straight", "known: constant, cosine"),
    ("optimizer=lion", "known: adam"),
    ("selector=proxy,proxy=nope", "proxy='nope' is not known; known: albert_base"),
    ("wrap=anealed", "wrap='anealed' is not known; known: annealed, class_balanced"),
    ("wrap=rescaled+rescaled", "wrap='rescaled+rescaled' names a wrapper twice"),
  ],
)
def test_a_wrong_variant_is_named(variants, line):
  with pytest.raises(options.UserError) as error:
    importlib.import_module("configs.digits").get_config(variants)
  assert line in str(error.value)


def test_the_static_selection_of_rsd15k_keeps_the_highest_sums_of_both_scores_all_along():
  generator = np.random.default_rng(0)
  columns = {name: jnp.asarray(generator.permutation(100) / 99, jnp.float32) for name in factor_stage.COLUMNS}
  table = SampleTable(100, jnp.asarray(np.arange(100) % 4, jnp.int32), 4, columns)
  module = importlib.import_module("configs.rsd15k")
  config = module.get_config("selector=rrd")
  flags = dict(re.findall(r"--config\.selector\.(\w+)=(\S+)", module.__doc__))
  settings = config.selector.to_dict() | {name: ast.literal_eval(value) for name, value in flags.items()}
  selector = selectors.create(settings.pop("name"), table, config.epochs, **settings)
  total = sum(np.asarray(column) for column in columns.values())
  threshold = np.sort(total)[-30]
  for epoch in range(config.epochs):
    selection, _ = selector.select(jax.random.key(epoch), selector.init(jax.random.key(0)), jnp.int32(epoch))
    chosen = np.flatnonzero(selection.keep)
    assert chosen.size == 30 and (total[chosen] >= threshold - 1e-6).all()
