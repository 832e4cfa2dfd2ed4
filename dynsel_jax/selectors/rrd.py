"""RRD: trains on representative samples first and on diverse ones later, and rotates the samples by their usage.

"Rethinking Representativeness and Diversity in Dynamic Data Selection", arXiv 2603.04981, Secs 3.3 to 3.5. Each epoch
keeps the samples with the highest score H (Eq. 16): a mix of representativeness and diversity, both fixed before
training, whose proportion shifts over the run (Eqs 13, 18), minus a penalty that grows with the sample's usage
(Eq. 12). The authors have not published code.

    H = alpha Rep + (1 - alpha) Div - Pen,   Pen = lambda log(1 + u)

with the usage u of a sample and alpha, which falls from alpha_max to alpha_min along a logistic curve over the run.

Representativeness (Eq. 3) and rarity (Eq. 6), which stands for diversity, are columns of the table. Ties are broken by
the key. A non-finite score counts as the worst and is logged. The paper's ablations (Table 6) are options:

    w/o Rep          representativeness=False
    w/o Div          diversity=False
    w/o Pen          penalty=0
    w/o alpha        alpha_min=alpha_max=0.5
    static           alpha_min=alpha_max=0.5, penalty=0
    only Div         representativeness=False, penalty=0
    only Rep         diversity=False, penalty=0
    only Pen         representativeness=False, diversity=False
    w/o full data    refinement=0

A term that is switched off is not read from the table and leaves the other with its own weight: without
representativeness the score is (1 - alpha) Div - Pen. The paper does not say at which value alpha is held. The penalty
alone rotates the samples.

`N` is the number of training samples, `C` the number of classes, `T` the number of epochs.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError, check_fraction, check_positive
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.annealed import annealed
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["COLUMNS", "RRDState", "hybrid_score", "mixing", "rrd", "usage_penalty"]

COLUMNS = ("representativeness", "rarity")


class RRDState(NamedTuple):
  """The state of RRD."""

  usage: memory.Usage  # u: number of epochs in which each sample was trained on, full-data epochs included


def mixing(epoch: Array, *, low: float, high: float, midpoint: float, slope: float) -> Array:
  """Returns the weight of representativeness in an epoch's score, alpha (Eq. 18), which falls from `high` to `low`.

  Args:
    epoch: `[]` int32, counted from 0; the paper's t is one more.
    low: alpha_min.
    high: start of the curve, 1 in the paper.
    midpoint: t_mid, the epoch, counted from 1, at which alpha is halfway.
    slope: k, per epoch.
  """
  t = (epoch + 1).astype(jnp.float32)
  return low + (high - low) * (1.0 - jax.nn.sigmoid(slope * (t - midpoint)))


def usage_penalty(visits: Array, penalty: float) -> Array:
  """Returns Pen = lambda log(1 + u) (Eq. 12) for the usage u before this epoch, `[N]` int32 to `[N]` float32."""
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

  Args:
    table: the training set, N samples, with the columns `COLUMNS`, each scaled to [0, 1] over the whole training set.
    epochs: of the run, T.
    keep_fraction: p, fraction kept each epoch, in (0, 1]: the floor of p n_c of a class of n_c samples, at least one.
    alpha_min: weight of representativeness at the end, in [0, 1].
    alpha_max: weight of representativeness at the start, in [alpha_min, 1].
    midpoint: t_mid as a fraction of the epochs, in [0, 1].
    slope: k, per epoch; 0 stands for 10 / T, which is the paper's 0.05 at T = 200 and keeps the shape of the curve.
    penalty: lambda, at least 0.
    refinement: rho, in [0, 1]; epochs t > (1 - rho) T, counted from 1, take the full data.
    class_balanced: False keeps the floor(p N) best of the whole training set, as in the paper's Algorithm 1, and reads
      no labels.
    representativeness: whether the score includes Rep.
    diversity: whether the score includes Div.

  Raises:
    UserError: a value lies outside its range, or the table lacks a column.
  """
  check_fraction("alpha_max", alpha_max, zero=True)
  check_fraction("midpoint", midpoint, zero=True)
  check_positive("slope", slope, zero=True)
  check_positive("penalty", penalty, zero=True)
  check_fraction("refinement", refinement, zero=True)
  if not 0 <= alpha_min <= alpha_max:
    raise UserError(f"alpha_min={alpha_min} must lie in [0, alpha_max={alpha_max}]")
  choose = _choice(table, keep_fraction, class_balanced)
  terms = dict(zip(COLUMNS, (representativeness, diversity), strict=True))
  rep, div = (_column(table, name, read) for name, read in terms.items())
  reads = [name for name, read in terms.items() if read] + ["labels"] * class_balanced
  alpha_of = functools.partial(
    mixing, low=alpha_min, high=alpha_max, midpoint=midpoint * epochs, slope=slope or 10.0 / epochs
  )
  selector = _by_score(rep, div, alpha_of, penalty, choose)._replace(reads=tuple(reads))
  return annealed(selector, table, epochs, last=refinement)


def _choice(table: SampleTable, keep_fraction: float, class_balanced: bool) -> Callable[[Array, Array], Array]:
  """Returns the function from a key and scores `[N]` float32 to the samples to keep, `[N]` bool."""
  count = ranking.keep_count(keep_fraction, table.num_samples)
  if not class_balanced:
    return functools.partial(ranking.top, count=count)
  layout = ranking.class_layout(table)
  return functools.partial(ranking.top_by_class, layout=layout, counts=ranking.class_budgets(keep_fraction, layout))


def _column(table: SampleTable, name: str, read: bool) -> Array:
  """Returns a column of the table, `[N]` float32, or zeros for a term that is switched off."""
  if not read:
    return jnp.zeros(table.num_samples, jnp.float32)
  if name not in table.columns:
    raise UserError(
      f"selector=rrd reads the column {name!r}, which the table does not have: name features, as in features=pixels"
    )
  return jnp.asarray(table.columns[name], jnp.float32)


def _by_score(
  representativeness: Array,
  rarity: Array,
  alpha_of: Callable[[Array], Array],
  penalty: float,
  choose: Callable[[Array, Array], Array],
) -> Selector:
  """Builds the selector without its last epochs on the full data."""
  num_samples = representativeness.shape[0]

  def init(key: Array) -> RRDState:
    del key
    return RRDState(usage=memory.empty_usage(num_samples))

  def select(key: Array, state: RRDState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    alpha = alpha_of(epoch)
    pen = usage_penalty(state.usage.visits, penalty)
    score, non_finite = ranking.sanitize(hybrid_score(representativeness, rarity, alpha, pen))
    info = {
      "alpha": alpha,
      "mean_penalty": jnp.mean(pen),
      "never_used": jnp.sum(state.usage.visits == 0, dtype=jnp.int32),
      "non_finite": non_finite,
    }
    return Selection(keep=choose(key, score)), info

  def observe(state: RRDState, signals: Signals) -> RRDState:
    return RRDState(usage=memory.count_visits(state.usage, signals))

  return Selector(init, select, observe)
