"""BLS, Batch Loss Score: a running average of the batch's mean loss stands in for each member's own loss.

Zhou et al., "Batch Loss Score for Dynamic Data Pruning", arXiv 2604.04681. For losses that are not available per
sample. `scored_by_batch` wraps any selector that reads losses; `bls_infobatch` and `bls_seta` are the paper's two. The
initial score is not in the public text; here it is the mean loss of the sample's first batch.

    score <- alpha score + (1 - alpha) mean loss of the sample's batch

`N` is the number of training samples, `B` the global batch size.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import memory
from dynsel_jax.selectors.infobatch import infobatch
from dynsel_jax.selectors.seta import seta
from dynsel_jax.selectors.wrappers.full_data import Selected, lift
from dynsel_jax.types import SampleTable, Selector, SelectorState, Signals

__all__ = ["BLSState", "bls_infobatch", "bls_seta", "scored_by_batch"]


class BLSState(NamedTuple):
  """The scores, and the state of the selector that reads them."""

  inner: SelectorState
  score: Array  # [N] float32, running average of the mean loss of the batches that held the sample
  last_epoch: Array  # [N] int32, epoch of the last update, -1 if never


def scored_by_batch(selector: Selector, table: SampleTable, *, history_weight: float = 0.7) -> Selector:
  """Replaces the losses that a selector observes by batch loss scores.

  The score of a member becomes alpha * score + (1 - alpha) * mean loss of the batch. A non-finite score is reset.
  Non-finite losses are left out of the mean.

  Args:
    selector: decides. Its `thin`, if it has one, sees the losses themselves.
    table: the training set, N samples.
    history_weight: alpha, weight of the old score, in [0, 1].

  Raises:
    UserError: the weight lies outside its range.
  """
  check_fraction("history_weight", history_weight, zero=True)

  def init(key: Array) -> BLSState:
    return BLSState(
      inner=selector.init(key),
      score=jnp.zeros(table.num_samples, jnp.float32),
      last_epoch=jnp.full(table.num_samples, -1, jnp.int32),
    )

  def select(key: Array, state: BLSState, epoch: Array) -> Selected:
    return selector.select(key, state.inner, epoch)

  def observe(state: BLSState, signals: Signals) -> BLSState:
    valid = (signals.index >= 0) & jnp.isfinite(signals.loss)
    mean = jnp.sum(jnp.where(valid, signals.loss, 0.0)) / jnp.sum(valid).astype(jnp.float32)
    new = memory.first_this_epoch(state.last_epoch, signals)
    old = memory.gather(state.score, signals)
    has_history = (memory.gather(state.last_epoch, signals) >= 0) & jnp.isfinite(old)
    score = jnp.where(has_history, history_weight * old + (1.0 - history_weight) * mean, mean)
    score = jnp.where(new, score, old)
    return BLSState(
      inner=selector.observe(state.inner, signals._replace(loss=score)),
      score=memory.scatter(state.score, signals, score),
      last_epoch=memory.scatter(state.last_epoch, signals, signals.epoch, new),
    )

  return lift(selector, init, select, observe)


def _over(method: Callable[..., Selector], title: str) -> Callable[..., Selector]:
  """Returns a factory of `method` over batch loss scores, with the options of both."""

  def factory(table: SampleTable, epochs: int, *, history_weight: float = 0.7, **settings: Any) -> Selector:
    return scored_by_batch(method(table, epochs, **settings), table, history_weight=history_weight)

  own, inner = (list(inspect.signature(function).parameters.values()) for function in (factory, method))
  keywords = [p for p in inner if p.kind is inspect.Parameter.KEYWORD_ONLY]
  factory.__signature__ = inspect.Signature([*own[:-1], *keywords])  # type: ignore[attr-defined]
  factory.__name__ = factory.__qualname__ = f"bls_{method.__name__}"
  factory.__doc__ = f"{title} over batch loss scores; options as of `scored_by_batch` and `{method.__name__}`."
  return factory


bls_infobatch = _over(infobatch, "InfoBatch")
bls_seta = _over(seta, "SeTa")
