"""Grain's DataLoader and MapDataset over a Sampler, stopped within an epoch and continued."""

import itertools

import numpy as np
import pytest
from absl import flags

from dynsel_jax import sampler

grain = pytest.importorskip("grain", reason="Grain is not installed: pip install grain")
adapter = pytest.importorskip("dynsel_jax.adapters.grain")
N, B, EPOCHS = 53, 8, 4
STOP = 9  # batches: within the second epoch


class Source:
  """Records that are their index times ten."""

  def __len__(self):
    return N

  def __getitem__(self, sample):
    return {"value": np.int64(10 * sample)}


class Noise(grain.transforms.RandomMap):
  def random_map(self, element, rng):
    return {**element, "noise": rng.random()}


def losses_of(index, epoch):
  return np.random.default_rng(epoch).lognormal(0, 1, N).astype(np.float32)[np.asarray(index)]


def selection_of(**changes):
  return sampler.Sampler("infobatch", **{"num_samples": N, "epochs": EPOCHS, "batch_size": B, "seed": 3, **changes})


def data_loader(epoch, workers=0):
  source, order = adapter.Weighted(Source(), epoch), adapter.EpochSampler(epoch)
  operations = [Noise(), grain.transforms.Batch(B)]
  return grain.DataLoader(data_source=source, sampler=order, operations=operations, worker_count=workers)


def map_dataset(epoch, workers=0):
  dataset = adapter.epoch_dataset(Source(), epoch).map(lambda record: {**record, "noise": 0.0}).batch(B)
  dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
  return dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)) if workers else dataset


def train(selection, loader_of, seen, stop_after=None):
  for epoch in selection.epochs():
    for batch in loader_of(epoch):
      np.testing.assert_array_equal(batch["value"], 10 * batch["index"])
      selection.observe(batch["index"], losses_of(batch["index"], epoch.number))
      seen.append(tuple(batch[name].tolist() for name in ("index", "weight", "noise")))
      if len(seen) == stop_after:
        return


@pytest.mark.parametrize("loader_of", [data_loader, map_dataset])
def test_an_epoch_stopped_and_continued_has_the_same_records(loader_of):
  whole, alone = [], selection_of()
  train(alone, loader_of, whole)
  expected, plain = [], selection_of()
  for epoch in plain.epochs():
    for index, weight in epoch:
      plain.observe(index, losses_of(index, epoch.number))
      expected.append((index.tolist(), weight.tolist()))
  assert [batch[:2] for batch in whole] == expected
  first, seen = selection_of(), []
  train(first, loader_of, seen, stop_after=STOP)
  assert (first.epoch, first.step) == (1, STOP - 7)
  second = selection_of()
  second.load_state_dict(first.state_dict())
  train(second, loader_of, seen)
  assert seen == whole


@pytest.fixture
def parsed_flags():
  """Grain's workers read flags of absl."""
  parsed = flags.FLAGS.is_parsed()
  flags.FLAGS.mark_as_parsed()
  yield
  if not parsed:
    flags.FLAGS.unparse_flags()


@pytest.mark.filterwarnings("ignore")
def test_workers_do_not_count_what_they_have_read(parsed_flags):
  first = selection_of(epochs=1)
  epoch = first.current()
  expected = [(index.tolist(), weight.tolist()) for index, weight in epoch.read_ahead()]
  seen = []
  for batch in itertools.islice(data_loader(epoch, workers=1), 3):
    first.observe(batch["index"], losses_of(batch["index"], 0))
    seen.append((batch["index"].tolist(), batch["weight"].tolist()))
  second = selection_of(epochs=1)
  second.load_state_dict(first.state_dict())
  train(second, lambda epoch: data_loader(epoch, workers=0), rest := [])  # another number of workers
  assert seen + [batch[:2] for batch in rest] == expected


def test_grain_s_own_sampler_begins_anew_without_a_state_and_is_bound_to_its_workers():
  def loader(workers=0):
    order = grain.samplers.IndexSampler(N, grain.sharding.NoSharding(), shuffle=True, num_epochs=2, seed=0)
    return grain.DataLoader(
      data_source=range(N), sampler=order, operations=[grain.transforms.Batch(B)], worker_count=workers
    )

  first = iter(loader())
  stopped = [next(first).tolist() for _ in range(3)]
  assert [batch.tolist() for batch in itertools.islice(loader(), 3)] == stopped  # trained on twice
  with pytest.raises(ValueError, match="Worker count in checkpoint does not match"):
    iter(loader(2)).set_state(first.get_state())


def test_a_state_of_another_epoch_s_iterator_is_refused_by_grain():
  selection = selection_of()
  epochs = selection.epochs()
  first = iter(data_loader(next(epochs)))
  next(first)
  with pytest.raises(ValueError, match="Sampler in checkpoint does not match"):
    iter(data_loader(next(epochs))).set_state(first.get_state())


def test_ranks_read_their_parts():
  ranks = [selection_of(rank=rank, world_size=2) for rank in range(2)]
  parts = [adapter.epoch_dataset(Source(), rank.current()).batch(B // 2) for rank in ranks]
  whole = [index.tolist() for index, _ in selection_of().current().read_ahead()]
  assert [one["index"].tolist() + other["index"].tolist() for one, other in zip(*parts, strict=True)] == whole


def test_records_that_are_no_dicts_and_an_epoch_that_is_over():
  selection = selection_of()
  epoch = selection.current()
  record = adapter.Weighted(range(N), epoch)[7]
  assert (record["record"], record["index"], record["weight"]) == (7, 7, 1.0)
  order = adapter.EpochSampler(epoch)
  with pytest.raises(IndexError):
    order[N]
  for batch in map_dataset(epoch):
    selection.observe(batch["index"], losses_of(batch["index"], 0))
  assert list(data_loader(epoch)) == [] and len(adapter.EpochSampler(epoch)) == 0
