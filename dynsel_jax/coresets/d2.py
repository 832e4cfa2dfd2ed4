"""D2 pruning: difficulty spread over a graph of nearest neighbours, and a greedy choice that steps back from it.

Maharana et al., arXiv 2310.07931, as their code has it. `nearest_neighbors` is pure and jit-able, the rest is
host-side. Features are those of a proxy model or of a pretrained one, of clean views; the importance is a difficulty
that is not negative, for example the forgetting count. The authors first drop the hardest share, which `where` does.

`N` is the number of training samples, `D` the width of the features, `K` the number of neighbours, `E` the number of
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
  """An undirected graph, each edge once from either end, ordered by the sample that it leaves."""

  start: np.ndarray  # [N + 1] int64, the edges of sample i are those from start[i] to start[i + 1]
  neighbor: np.ndarray  # [E] int32
  distance: np.ndarray  # [E] float32


@functools.partial(jax.jit, static_argnames=("num_neighbors", "block"))
def nearest_neighbors(
  features: Array, num_neighbors: int, where: Array | None = None, *, block: int = 512
) -> tuple[Array, Array]:
  """Finds the nearest other samples in Euclidean distance. Memory grows with N, not with its square.

  Candidates are found from expanded squares of centred features, the distances returned are taken from differences.

  Args:
    features: `[N, D]` float32.
    num_neighbors: K, less than N.
    where: `[N]` bool, False for samples that neither have nor are neighbours; all if not given.
    block: how many samples are compared with all others at a time.

  Returns:
    Index `[N, K]` int32 and distance `[N, K]` float32, infinite where there is no such neighbour.
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
  """Joins two samples if either is among the other's nearest.

  Args:
    index: `[N, K]` int32, from `nearest_neighbors`.
    distance: `[N, K]` float32, infinite where there is no such neighbour.
  """
  index, distance = np.asarray(index), np.asarray(distance)
  n = len(index)
  near = np.isfinite(distance)
  source, target = np.nonzero(near)[0], index[near].astype(np.int64)
  edge = np.concatenate([source * n + target, target * n + source])  # both directions, many of them twice
  edge, kept = np.unique(edge, return_index=True)
  start = np.searchsorted(edge, np.arange(n + 1) * n)
  return Graph(start, (edge % n).astype(np.int32), np.tile(distance[near], 2)[kept])


def spread(graph: Graph, importance: ArrayLike, *, combine: str = "sum") -> np.ndarray:
  """Returns each sample's score after one round of messages, `[N]` float64.

  With the importance s, and over the neighbours j at distance d, the message is sum_j exp(-d) s_j.

  Args:
    graph: of N samples.
    importance: `[N]` floating point.
    combine: "sum" adds the message to the sample's own importance, "product" multiplies.

  Raises:
    UserError: `combine` is not known.
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
  """Picks again and again the sample with the highest score, and takes from its neighbours' scores.

  A score may be below 0 when it is picked, and then adds to its neighbours, as in the published code. Of equals the
  sample with the lowest index is picked.

  Args:
    features: `[N, D]` floating point.
    importance: `[N]` floating point; high is hard.
    count: how many to pick.
    where: `[N]` bool, the samples to choose from and to draw the graph of; all if not given. A sample with a feature
      or an importance that is not finite is left out.
    num_neighbors: K, at most N - 1 are used.
    gamma: how fast the discount falls with the distance, at least 0.
    combine: see `spread`.
    discount: "weighted" takes exp(-gamma d) times the picked score from a neighbour at distance d, "absolute" all
      of it.

  Returns:
    `[count]` int32, indices in the order of picking; -1 once no sample is left.

  Raises:
    UserError: an option is not known or lies outside its range.
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
