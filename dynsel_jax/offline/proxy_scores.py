"""Makes static scores of a training set by one proxy run, and by two more for the irreducible loss. Host-side.

`N` is the number of training samples, `D` the width of the last layer's input.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dynsel_jax import cache, data
from dynsel_jax.coresets import d2, dynamics, geometry, greedy
from dynsel_jax.offline import proxy_recorder
from dynsel_jax.offline.plain_config import plain_config
from dynsel_jax.options import UserError, check_choice
from dynsel_jax.selectors import ranking, static
from dynsel_jax.selectors.rho_loss import COLUMN as IRREDUCIBLE_LOSS
from dynsel_jax.training import loop
from dynsel_jax.types import SampleTable, Selector

__all__ = ["DEFAULT_SCORES", "SCORES", "check", "half", "order_column", "score"]

FINAL = ("entropy", "margin")  # from the outputs of the trained model
FROM_FEATURES = ("d2", "herding", "k_center", "moderate", "prototypes")
# In this order: two more runs; each sample's gradient at ten checkpoints; N picks that each compare all N samples.
SLOW = (IRREDUCIBLE_LOSS, "moso", "herding", "k_center")
SCORES = tuple(sorted((*proxy_recorder.RECORDED, *FINAL, *FROM_FEATURES, IRREDUCIBLE_LOSS)))
DEFAULT_SCORES = tuple(name for name in SCORES if name not in SLOW)

_RECORDER = f"{proxy_recorder.__name__}:recorder"
_HALF = f"{__name__}:half"


def score(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  scores: Sequence[str] = DEFAULT_SCORES,
  *,
  window: int = 10,
  early_epochs: int = 10,
  prepare: Callable[..., data.Source] = data.prepare,
) -> cache.Arrays:
  """Starts or continues the runs that the scores need, and returns one column for each score.

  Args:
    config: of the proxy run, which is plain training; its selector is ignored.
    workdir: the folder of the runs: `proxy`, and for the irreducible loss `half_0` and `half_1`.
    scores: of `SCORES`.
    window: epochs of the sliding window of Dyn-Unc, DUAL and TDDS.
    early_epochs: number of first epochs over which EL2N and GraNd are averaged.
    prepare: see `loop.train_and_evaluate`.

  Returns:
    The columns, `[N]` float32 each.

  Raises:
    UserError: a name or a value is wrong.
    Interrupted, NonFiniteError: as `loop.train_and_evaluate`.
  """
  check(config, scores, window)
  workdir = pathlib.Path(workdir)
  columns: cache.Arrays = {}
  if any(name != IRREDUCIBLE_LOSS for name in scores):
    columns.update(_of_proxy(config, workdir / "proxy", scores, window, early_epochs, prepare))
  if IRREDUCIBLE_LOSS in scores:
    columns[IRREDUCIBLE_LOSS] = _irreducible_loss(config, workdir, prepare)
  return {name: np.asarray(columns[name], np.float32) for name in sorted(scores)}


def check(config: ml_collections.ConfigDict, scores: Sequence[str], window: int) -> None:
  """Raises `UserError`, before any data are read, if `score` cannot make these scores with this config and window."""
  if not scores:
    raise UserError(f"scores= is empty; known: {', '.join(SCORES)}")
  for name in scores:
    check_choice("scores", name, SCORES)
    if name in proxy_recorder.RECORDED:
      proxy_recorder.check_window(name, window, config.epochs)
  if config.task.name != "classification":
    raise UserError(f"task.name={config.task.name}: scores are defined only for task.name=classification")
  if config.dataset.get("stream"):
    raise UserError("dataset.stream=True: scores can be recorded only for images in memory (dataset.stream=False)")


def _of_proxy(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  scores: Sequence[str],
  window: int,
  early_epochs: int,
  prepare: Callable[..., data.Source],
) -> cache.Arrays:
  """Returns the columns of one recorded run: from its epochs, its final outputs and its features."""
  needed = {*scores, "forgetting"} if "d2" in scores else {*scores}  # D2's measure of difficulty
  recorded = tuple(sorted(needed & set(proxy_recorder.RECORDED)))
  settings: dict[str, Any] = {"scores": recorded, "window": window, "early_epochs": early_epochs}
  proxy, hook = plain_config(config, _RECORDER, **settings), functools.partial(proxy_recorder.record, **settings)
  _, state, run = loop.train_and_evaluate(proxy, workdir, prepare=prepare, after_epoch=hook)
  columns = proxy_recorder.columns(run, state, **settings)
  if needed & set(FINAL):
    probabilities = jnp.asarray(proxy_recorder.outputs(run, state.train, ("probabilities",))["probabilities"])
    columns["entropy"] = np.asarray(dynamics.entropy(probabilities))
    columns["margin"] = np.asarray(dynamics.margin(probabilities, jnp.asarray(run.source.labels)))
  if chosen := needed & set(FROM_FEATURES):
    features = proxy_recorder.outputs(run, state.train, ("features",))["features"]
    columns.update(_of_features(chosen, features, run.source, columns.get("forgetting"), config.seed))
  return columns


def _of_features(
  scores: set[str], features: np.ndarray, source: data.Source, importance: np.ndarray | None, seed: int
) -> cache.Arrays:
  """Returns the named columns from the features `[N, D]`; D2 also reads the importance `[N]`."""
  num_samples, key = len(features), jax.random.key(seed)
  center_key, prototype_key = jax.random.split(key)
  first = jax.random.randint(center_key, (), 0, num_samples)
  makers: dict[str, Callable[[], Any]] = {
    "d2": lambda: order_column(d2.d2(features, importance, num_samples), num_samples),  # type: ignore[arg-type]
    "herding": lambda: order_column(greedy.herding(jnp.asarray(features), num_samples), num_samples),
    "k_center": lambda: order_column(greedy.k_center(jnp.asarray(features), num_samples, first), num_samples),
    "moderate": lambda: geometry.distance_to_class_median(features, source.train["labels"]),
    "prototypes": lambda: geometry.distance_to_prototype(prototype_key, features, source.num_classes),
  }
  return {name: makers[name]() for name in sorted(scores)}


def order_column(order: Any, num_samples: int) -> np.ndarray:
  """Turns an order of picks into a score, `[N]` float32: 1 for the first pick, 1 / N less for each next, else 0.

  Args:
    order: `[count]` int32, indices in the order of picking, -1 where nothing was picked.
    num_samples: N.
  """
  order = np.asarray(order)
  column = np.zeros(num_samples, np.float32)
  column[order[order >= 0]] = 1.0 - np.flatnonzero(order >= 0) / num_samples
  return column


def half(table: SampleTable, epochs: int, *, part: int = 0, seed: int = 0) -> Selector:
  """Trains on one half of the samples in every epoch.

  Args:
    table: the training set, N samples.
    epochs: unused.
    part: 0 for the first half, which has floor(N / 2) samples, or 1 for the second.
    seed: of the split.
  """
  del epochs
  in_first = _first_half(seed, table.num_samples)
  return static.fixed_subset(lambda key: jnp.asarray(in_first if part == 0 else ~in_first))


def _first_half(seed: int, num_samples: int) -> np.ndarray:
  return np.asarray(ranking.uniform_subset(jax.random.key(seed), num_samples, num_samples // 2))


def _irreducible_loss(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, prepare: Callable[..., data.Source]
) -> np.ndarray:
  """Computes each sample's loss in nats under the model that was trained on the other half, `[N]` float32.

  This is RHO-LOSS without hold-out data: Mindermann et al., arXiv 2206.07137. The authors stop at the lowest loss on
  the other half; here each model is that of the last epoch.
  """
  losses = []
  for part in (0, 1):
    proxy = plain_config(config, _HALF, part=part, seed=config.seed)
    _, state, run = loop.train_and_evaluate(proxy, workdir / f"half_{part}", prepare=prepare)
    losses.append(proxy_recorder.outputs(run, state.train, ("loss",))["loss"])
  in_first = _first_half(config.seed, len(losses[0]))
  return np.where(in_first, losses[1], losses[0])
