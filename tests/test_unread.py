"""What a loader that reads ahead is given of a Sampler's epoch, without any framework; and divided weights."""

import itertools

import numpy as np
import pytest

from dynsel_jax import sampler
from dynsel_jax.options import UserError

N, B, EPOCHS = 53, 8, 6


def made(method="infobatch", **changes):
  return sampler.Sampler(method, **{"num_samples": N, "epochs": EPOCHS, "batch_size": B, "seed": 3, **changes})


def losses_of(index, epoch):
  return np.random.default_rng(epoch).lognormal(0, 1, N).astype(np.float32)[index]


def train(selection, unread, seen, stop_after=None):
  """A loop over the loader alone; `seen` gets the samples of each batch."""
  for epoch in range(selection.epoch, EPOCHS):
    for index in unread:
      selection.observe(index, losses_of(index, epoch))
      seen.append(index)
      if len(seen) == stop_after:
        return


@pytest.fixture(scope="module")
def whole():
  selection, seen = made(), []
  for epoch in selection.epochs():
    for index, _ in epoch:
      selection.observe(index, losses_of(index, epoch.number))
      seen.append(index.tolist())
  return seen


def test_it_goes_on_from_epoch_to_epoch_and_behind_a_stop(whole):
  first, seen = made(), []
  train(first, sampler.Unread(first), seen, stop_after=9)
  second = made()
  second.load_state_dict(first.state_dict())
  unread = sampler.Unread(second)
  assert len(unread) == len(second.current()) > 0
  train(second, unread, seen)
  assert seen == whole and list(unread) == [] and len(unread) == 0


class BySample(sampler.Unread):
  by_sample = True


def test_positions_are_those_of_batches_whatever_an_item_is():
  whole, parts = made(), [made(rank=rank, world_size=2) for rank in range(2)]
  batches, *singles = iter(sampler.Unread(whole)), *(iter(BySample(part)) for part in parts)
  for number, batch in enumerate(itertools.islice(batches, 3), 1):
    halves = [list(itertools.islice(reader, B // 2)) for reader in singles]
    assert halves[0] + halves[1] == batch
    positions = [reader.state_dict() for reader in (batches, *singles)]
    assert positions == [{"epoch": 0, "step": number, "last": 7}] * 3
  whole.observe(batch, losses_of(batch, 0))
  iter(sampler.Unread(whole)).load_state_dict(positions[0])  # it stands where the reader stood
  with pytest.raises(UserError, match=r"the loader stands at \(epoch, batch\) \(0, 3\), the selection at \(0, 0\)"):
    iter(sampler.Unread(made())).load_state_dict(positions[0])


def test_an_epoch_that_nobody_observed_is_not_given_again_in_silence():
  unread = sampler.Unread(made())
  assert next(iter(unread)) and len(list(unread)) == 7  # a look at the first batch does no harm
  with pytest.raises(UserError, match="no batch of epoch 1 was observed"):
    next(iter(unread))


@pytest.mark.parametrize(("method", "divisor"), [("infobatch", 2 + 6), ("full", 1 * 2 + 2 * 6)])
def test_a_batch_s_weights_are_divided_as_the_method_wants_it(method, divisor):
  divided = made(method).divided(np.array([1, 2], np.float32), [2, 6])
  np.testing.assert_allclose(divided, [1 / divisor, 2 / divisor], rtol=1e-6)
