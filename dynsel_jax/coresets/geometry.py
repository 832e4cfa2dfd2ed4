"""Distances to a centre: to the class median (moderate coreset) and to the nearest prototype. Host-side.

Features come from a proxy or a pretrained model on clean views. A row that is not finite gets NaN and does not affect
the centres.

`N` is the number of training samples, `D` the width of the features.
"""

import warnings

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from dynsel_jax.options import UserError

__all__ = ["distance_to_class_median", "distance_to_prototype"]


def distance_to_class_median(features: ArrayLike, labels: ArrayLike) -> np.ndarray:
  """Computes each sample's Euclidean distance to the median feature of its class, `[N]` float32. High is hard.

  The score of the moderate coreset (Xia et al., ICLR 2023, "Moderate Coreset: A Universal Method of Data Selection for
  Real-world Data-efficient Deep Learning"), which keeps the samples with the most central distances: `subsets.central`
  without groups. The distance is 0 in a class with a single sample.

  Args:
    features: `[N, D]` floating point.
    labels: `[N]` int32.
  """
  features, labels = np.asarray(features), np.asarray(labels)
  distance = np.full(len(features), np.nan, np.float32)
  finite = np.isfinite(features).all(axis=1)
  for label in np.unique(labels[finite]):
    members = np.flatnonzero(finite & (labels == label))
    of_class = features[members]
    distance[members] = np.linalg.norm(of_class - np.median(of_class, axis=0), axis=1)
  return distance


def distance_to_prototype(key: Array, features: ArrayLike, num_prototypes: int) -> np.ndarray:
  """Computes each sample's cosine distance to the nearest k-means centre, `[N]` float32. High is hard.

  Sorscher et al., arXiv 2206.14486, Sec. 5, with features of a self-supervised model. They keep the farthest samples of
  large data sets and the nearest of small ones. Rows are scaled to unit norm before the clustering. The number of
  prototypes is commonly the number of classes, but labels are not used.

  Args:
    key: draws the initial centres.
    features: `[N, D]` floating point.
    num_prototypes: from 1 to the number of finite rows; repeated rows may give fewer distinct centres.

  Raises:
    UserError: `num_prototypes` is out of range.
  """
  features = np.asarray(features)
  finite = np.isfinite(features).all(axis=1)
  rows = _unit(features[finite])
  if not 1 <= num_prototypes <= len(rows):
    raise UserError(f"num_prototypes={num_prototypes} must lie in [1, {len(rows)}], the number of finite feature rows")
  from sklearn.cluster import KMeans  # on use: it takes longer to import than JAX
  from sklearn.exceptions import ConvergenceWarning

  seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # raised if there are fewer distinct rows than prototypes
    clusters = KMeans(num_prototypes, n_init=1, random_state=seed).fit(rows)
  distance = np.full(len(features), np.nan, np.float32)
  distance[finite] = 1.0 - np.sum(rows * _unit(clusters.cluster_centers_)[clusters.labels_], axis=1)
  return distance


def _unit(rows: np.ndarray) -> np.ndarray:
  """Scales rows to unit norm; a row of zeros stays zero."""
  norm = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.where(norm > 0, norm, 1)
