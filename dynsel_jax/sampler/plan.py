"""The plan of a running epoch as numpy arrays: its batches, and where each sample stands in it. Host-side.

`N` is the number of training samples, `n` the number that the epoch trains on, `b` the rows of a batch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dynsel_jax.options import UserError

__all__ = ["HostPlan"]


class HostPlan:
  """Which samples an epoch visits, in which order, with which weights.

  indices: `[n]` int32, in visiting order.
  weights: `[n]` float32, the loss weight of the sample at the same place.
  learning_rate_multiplier: of the whole epoch.
  thin: whether the epoch's batches are thinned.
  given: `[N]` bool, the samples that may be observed: those visited, and those that are scored again.
  """

  def __init__(
    self,
    indices: np.ndarray,
    weights: np.ndarray,
    learning_rate_multiplier: float,
    thin: bool,
    given: np.ndarray,
  ):
    self.indices, self.weights, self.given = indices, weights, given
    self.learning_rate_multiplier, self.thin = learning_rate_multiplier, thin
    self._places = np.full(len(given), -1, np.int32)  # of each sample in the visiting order
    self._places[indices] = np.arange(len(indices), dtype=np.int32)

  @classmethod
  def of(cls, num_samples: int, indices: Any, weights: Any, multiplier: float, thin: bool) -> "HostPlan":
    """Builds the plan of an epoch that has just been selected."""
    given = np.zeros(num_samples, bool)
    given[indices] = True
    return cls(indices, weights, multiplier, thin, given)

  @classmethod
  def from_state(cls, state: Mapping[str, Any]) -> "HostPlan":
    """Builds the plan from what `state` returned, also after it has been through JSON or another format."""
    return cls(
      np.asarray(state["plan_indices"], np.int32),
      np.asarray(state["plan_weights"], np.float32),
      float(state["plan_learning_rate_multiplier"]),
      bool(state["plan_thin"]),
      np.asarray(state["plan_given"], bool),
    )

  def state(self) -> dict[str, Any]:
    """Returns the plan as arrays and numbers by name."""
    return {
      "plan_indices": self.indices,
      "plan_weights": self.weights,
      "plan_learning_rate_multiplier": self.learning_rate_multiplier,
      "plan_thin": self.thin,
      "plan_given": self.given,
    }

  def part(self, step: int, batch_size: int, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices and weights of one rank's part of a batch; the first ranks may have a row more."""
    start = step * batch_size
    end = min(start + batch_size, len(self.indices))
    if world_size > 1:
      rows, longer = divmod(end - start, world_size)
      start += rank * rows + min(rank, longer)
      end = start + rows + (rank < longer)
    return self.indices[start:end], self.weights[start:end]

  def places_of(self, index: np.ndarray) -> np.ndarray:
    """Returns the places of samples in the visiting order, `[b]` int32.

    Raises:
      UserError: the epoch does not train on one of them.
    """
    inside = (index >= 0) & (index < len(self.given))
    places = np.where(inside, self._places[np.where(inside, index, 0)], -1)
    if (places < 0).any():
      raise UserError(f"index contains {index[places < 0][0]}, which the epoch does not train on")
    return places

  def last_place(self, index: np.ndarray) -> int:
    """Returns the last place of samples in the visiting order, -1 if the epoch trains on none of them."""
    return int(self._places[index].max()) if index.size else -1
