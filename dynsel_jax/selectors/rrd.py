"""RRD: trains on what is representative first and on what is diverse later, and lets the samples take turns.

"Rethinking Representativeness and Diversity in Dynamic Data Selection", arXiv 2603.04981, Secs 3.3 to 3.5. Each epoch
keeps the samples with the highest score H (Eq. 16): a mix of representativeness and diversity, both fixed before
training, whose proportion moves over the run (Eqs 13, 18), less a penalty that grows with the sample's use (Eq. 12).
The paper's authors have published no code.

`N` is the number of training samples, `C` the number of classes, `T` the number of epochs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError, check_fraction, check_positive
from dynsel_jax.selectors import memory, ranking, wrappers
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["RRDState", "hybrid_score", "mixing", "rrd", "usage_penalty"]


class RRDState(NamedTuple):
  """What RRD remembers."""

  usage: memory.Usage  # u: in how many epochs each sample was trained on, full-data epochs included


def mixing(epoch: Array, *, low: float, high: float, midpoint: float, slope: float) -> Array:
  """Returns the share of representativeness in an epoch's score, alpha (Eq. 18), falling from `high` to `low`.

  Args:
    epoch: `[]` int32, counted from 0; the paper's t is one more.
    low: alpha_min.
    high: where the curve begins, 1 in the paper.
    midpoint: t_mid, the epoch, counted from 1, at which the share is halfway.
    slope: k, per epoch.
  """
  t = (epoch + 1).astype(jnp.float32)
  return low + (high - low) * (1.0 - jax.nn.sigmoid(slope * (t - midpoint)))


def usage_penalty(visits: Array, penalty: float) -> Array:
  """Returns Pen = lambda log(1 + u) (Eq. 12) for the uses u before this epoch, `[N]` int32 to `[N]` float32."""
  return penalty * jnp.log1p(visits.astype(jnp.float32))


def hybrid_score(representativeness: Array, rarity: Array, alpha: Array, pen: Array) -> Array:
  """Returns H = alpha Rep + (1 - alpha) Div - Pen (Eqs 13 and 16), `[N]` float32; `alpha` is `[]`, the rest `[N]`."""
  return alpha * representativeness + (1.0 - alpha) * rarity - pen


def rrd(
  table: SampleTable,
  epochs: int,
  *,
  keep_fraction: float = 0.3,
  alpha_min: float = 0.2,
  alpha_max: float = 1.0,
  midpoint: float = 0.6,
  slope: float = 0.0,
  penalty: float = 0.2,
  refinement: float = 0.15,
  class_balanced: bool = True,
  representativeness: bool = True,
  diversity: bool = True,
) -> Selector:
  """Keeps in each class the samples with the highest score H; the last epochs take the full data.

  Reads the table's columns "representativeness" (Eq. 3) and "rarity" (Eq. 6), each brought to [0, 1] over the whole
  training set. Ties are broken by the key. A score that is not finite is the worst and is reported.

  The paper's ablations (Table 6) are options:

      w/o Rep          representativeness=False
      w/o Div          diversity=False
      w/o Pen          penalty=0
      w/o alpha        alpha_min=alpha_max=0.5
      static           alpha_min=alpha_max=0.5, penalty=0
      only Div         representativeness=False, penalty=0
      only Rep         diversity=False, penalty=0
      only Pen         representativeness=False, diversity=False
      w/o full data    refinement=0

  A term that is switched off, whose column is not read then, leaves the other with its own weight: without
  representativeness s = (1 - alpha) Div. The paper does not say at which value alpha is held. The penalty alone is a
  rotation.

  Args:
    table: the training set, N samples.
    epochs: how many the run has, T.
    keep_fraction: p, share kept each epoch, in (0, 1]: the floor of p n_c of a class of n_c samples, at least one.
    alpha_min: share of representativeness at the end, in [0, 1].
    alpha_max: share of representativeness at the start, in [alpha_min, 1].
    midpoint: t_mid as a share of the epochs, in [0, 1].
    slope: k, per epoch; 0 stands for 10 / T, which is the paper's 0.05 at its T = 200 and keeps the curve's shape.
    penalty: lambda, at least 0.
    refinement: rho, in [0, 1]; epochs t > (1 - rho) T, counted from 1, take the full data.
    class_balanced: False keeps the floor of p N best of the whole training set, as the paper's Algorithm 1 is written.
    representativeness: whether the score has this term.
    diversity: whether the score has this term.

  Raises:
    UserError: a value lies outside its range, or the table lacks a column.
  """
  ranking.check_fraction("keep_fraction", keep_fraction)
  check_fraction("alpha_max", alpha_max, zero=True)
  check_fraction("midpoint", midpoint, zero=True)
  check_positive("slope", slope, zero=True)
  check_positive("penalty", penalty, zero=True)
  if not 0 <= alpha_min <= alpha_max:
    raise UserError(f"alpha_min={alpha_min} must lie in [0, alpha_max={alpha_max}]")
  num_samples = table.labels.shape[0]
  zero = jnp.zeros(num_samples, jnp.float32)
  rep = _column(table, "representativeness") if representativeness else zero
  div = _column(table, "rarity") if diversity else zero
  layout = ranking.class_layout(table.labels, table.num_classes)
  class_counts = ranking.class_budgets(keep_fraction, layout)

  def init(key: Array) -> RRDState:
    del key
    return RRDState(usage=memory.no_usage(num_samples))

  def select(key: Array, state: RRDState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    tie_key, order_key = jax.random.split(key)
    alpha = mixing(epoch, low=alpha_min, high=alpha_max, midpoint=midpoint * epochs, slope=slope or 10.0 / epochs)
    pen = usage_penalty(state.usage.visits, penalty)
    score, non_finite = ranking.guard(hybrid_score(rep, div, alpha, pen))
    if class_balanced:
      keep = ranking.top_by_class(tie_key, score, layout, class_counts)
    else:
      keep = ranking.top_fraction(tie_key, score, keep_fraction)
    info = {
      "alpha": alpha,
      "mean_penalty": jnp.mean(pen),
      "never_used": jnp.sum(state.usage.visits == 0, dtype=jnp.int32),
      "non_finite": non_finite,
    }
    return ranking.visiting_order(order_key, keep), info

  def observe(state: RRDState, signals: Signals) -> RRDState:
    return RRDState(usage=memory.counted(state.usage, signals))

  return wrappers.annealed(Selector(init, select, observe), table, epochs, last=refinement)


def _column(table: SampleTable, name: str) -> Array:
  if name not in table.columns:
    raise UserError(f"selector rrd needs table.columns[{name!r}], which the config's features and factors make")
  return jnp.asarray(table.columns[name], jnp.float32)
