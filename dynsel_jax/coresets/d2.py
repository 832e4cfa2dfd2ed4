"""D2 pruning: message passing of difficulty over a nearest-neighbour graph, and a greedy choice that avoids neighbours.

Maharana et al., arXiv 2310.07931, following their code. `nearest_neighbors` is pure and jit-able, the rest is
host-side. Features come from a proxy or a pretrained model on clean views. The importance is a non-negative difficulty,
for example the forgetting count. The authors first remove the hardest fraction of the samples: use `where` for that.

`N` is the number of training samples, `D` the width of the features, `K` the number of neighbours and `E` the number of
directed edges.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from dynsel_jax.options import check_choice, check_positive

__all__ = ["Graph", "d2", "neighbor_graph", "nearest_neighbors", "spread"]


class Graph(NamedTuple):
  """An undirected graph in compressed rows; each edge is stored in both directions."""

  start: np.ndarray  # [N + 1] int64, sample i has the edges start[i] to start[i + 1]
  neighbor: np.ndarray  # [E] int32
  distance: np.ndarray  # [E] float32


@functools.partial(jax.jit, static_argnames=("num_neighbors", "block"))
def nearest_neighbors(
  features: Array, num_neighbors: int, where: Array | None = None, *, block: int = 512
) -> tuple[Array, Array]:
  """Finds the nearest other samples in Euclidean distance. Memory grows with N, not with its square.

  Neighbours are ranked by the expanded square of centred features; the returned distances come from differences, which
  round less.

  Args:
    features: `[N, D]` float32.
    num_neighbors: K, less than N.
    where: `[N]` bool, False for samples to exclude; includes all if not given.
    block: number of samples to compare with all others at a time.

  Returns:
    Indices `[N, K]` int32 and distances `[N, K]` float32, infinite where a sample has fewer neighbours.
  """
  where = jnp.all(jnp.isfinite(features), axis=1) & (True if where is None else where)
  rows = jnp.where(where[:, None], features.astype(jnp.float32), 0.0)
  rows = rows - jnp.sum(rows, axis=0, keepdims=True) / jnp.maximum(jnp.sum(where), 1).astype(jnp.float32)
  squared = jnp.where(where, jnp.sum(jnp.square(rows), axis=1), jnp.inf)

  def neighbors(index: Array) -> tuple[Array, Array]:
    products = jnp.matmul(rows, rows[index], precision=jax.lax.Precision.HIGHEST)
    closeness = jnp.where(jnp.arange(squared.shape[0]) == index, -jnp.inf, 2.0 * products - squared)
    _, nearest = jax.lax.top_k(closeness, num_neighbors)
    distance = jnp.linalg.norm(rows[nearest] - rows[index][None, :], axis=1)
    return nearest.astype(jnp.int32), jnp.where(where[index] & jnp.isfinite(closeness[nearest]), distance, jnp.inf)

  return jax.lax.map(neighbors, jnp.arange(features.shape[0]), batch_size=block)


def neighbor_graph(index: ArrayLike, distance: ArrayLike) -> Graph:
  """Connects two samples if either is among the nearest neighbours of the other.

  Args:
    index: `[N, K]` int32, from `nearest_neighbors`.
    distance: `[N, K]` float32, infinite where a sample has fewer neighbours.
  """
  index, distance = np.asarray(index), np.asarray(distance)
  n = len(index)
  near = np.isfinite(distance)
  source, target = np.nonzero(near)[0], index[near].astype(np.int64)
  edge = np.concatenate([source * n + target, target * n + source])  # both directions; mutual neighbours appear twice
  edge, kept = np.unique(edge, return_index=True)
  start = np.searchsorted(edge, np.arange(n + 1) * n)
  return Graph(start, (edge % n).astype(np.int32), np.tile(distance[near], 2)[kept])


def spread(graph: Graph, importance: ArrayLike, *, combine: str = "sum") -> np.ndarray:
  """Computes each sample's score after one round of message passing, `[N]` float64.

  With the importance s, a sample receives the message sum_j exp(-d_j) s_j from its neighbours j at the distances d_j.

  Args:
    graph: of N samples.
    importance: `[N]` floating point.
    combine: "sum" adds the message to the sample's own importance, "product" multiplies them.

  Raises:
    UserError: `combine` is unknown.
  """
  check_choice("combine", combine, ("product", "sum"))
  importance = np.asarray(importance, np.float64)
  n = len(importance)
  source = np.repeat(np.arange(n), np.diff(graph.start))
  message = np.bincount(source, np.exp(-graph.distance) * importance[graph.neighbor], n)
  return importance + message if combine == "sum" else importance * message


def d2(
  features: ArrayLike,
  importance: ArrayLike,
  count: int,
  where: ArrayLike | None = None,
  *,
  num_neighbors: int = 5,
  gamma: float = 0.1,
  combine: str = "sum",
  discount: str = "weighted",
) -> np.ndarray:
  """Repeatedly picks the sample with the highest score and reduces the scores of its neighbours.

  As in the published code, a picked score below 0 increases the scores of its neighbours. Ties go to the lowest index.

  Args:
    features: `[N, D]` floating point.
    importance: `[N]` floating point; high is hard.
    count: number of samples to pick.
    where: `[N]` bool, the samples in the graph, from which to pick; all if not given. Samples with a feature or an
      importance that is not finite are excluded.
    num_neighbors: K; N - 1 if larger.
    gamma: decay of the discount with the distance, at least 0.
    combine: see `spread`.
    discount: "weighted" subtracts exp(-gamma d) times the picked score from a neighbour at distance d, "absolute" the
      whole score.

  Returns:
    `[count]` int32, indices in the order of picking; -1 once no sample is left.

  Raises:
    UserError: an option is unknown or out of range.
  """
  check_choice("discount", discount, ("absolute", "weighted"))
  check_positive("num_neighbors", num_neighbors)
  check_positive("gamma", gamma, zero=True)
  features, importance = np.asarray(features, np.float32), np.asarray(importance, np.float64)
  free = np.isfinite(features).all(axis=1) & np.isfinite(importance) & (True if where is None else np.asarray(where))
  num_neighbors = min(num_neighbors, len(features) - 1)
  graph = neighbor_graph(*nearest_neighbors(jnp.asarray(features), num_neighbors, jnp.asarray(free)))
  factor = np.exp(-gamma * graph.distance) if discount == "weighted" else np.ones_like(graph.distance)
  score = np.where(free, spread(graph, np.where(free, importance, 0.0), combine=combine), -np.inf)
  order = np.full(count, -1, np.int32)
  for i in range(min(count, int(free.sum()))):
    order[i] = chosen = np.argmax(score)
    edges = slice(graph.start[chosen], graph.start[chosen + 1])
    score[graph.neighbor[edges]] -= factor[edges] * score[chosen]
    score[chosen] = -np.inf
  return order
