"""Label noise: replaces a seeded random part of the training labels. Host-side, pure functions over NumPy arrays.

`N` is the number of training samples, `C` the number of classes.
"""

import hashlib
from typing import Any

import numpy as np

from dynsel_jax import options
from dynsel_jax.data.source import Dataset, Source, check_classes

__all__ = ["KINDS", "apply", "check", "defaults", "noisy_labels"]

KINDS = ("symmetric", "asymmetric")


def noisy_labels(
  labels: np.ndarray,
  num_classes: int,
  *,
  rate: float = 0.0,
  kind: str = "symmetric",
  class_map: tuple[int, ...] = (),
  seed: int = 0,
) -> np.ndarray:
  """Returns a copy of the labels in which round(rate * N) samples, drawn at random, have a new class.

  With the same seed, a higher rate changes the same samples to the same classes as a lower rate, and more.

  Args:
    labels: `[N]` int32, the true labels.
    num_classes: C.
    rate: fraction of the samples that is drawn, in [0, 1].
    kind: "symmetric" draws the new class uniformly from all C, including the true one, as RRD (arXiv 2603.04981,
      App. B.3) does, so that about rate * (1 - 1 / C) of all labels are wrong. "asymmetric" takes `class_map[label]`,
      as in Patrini et al. (arXiv 1609.03683).
    class_map: C classes for "asymmetric"; empty maps each class to the next and the last to the first. A class that is
      mapped to itself keeps its labels.
    seed: of the draw.

  Raises:
    UserError: `class_map` does not map each class to one of the C classes.
  """
  mapped = np.asarray(class_map or [*range(1, num_classes), 0])
  if mapped.shape != (num_classes,) or mapped.dtype.kind not in "iu" or not set(mapped) <= set(range(num_classes)):
    raise options.UserError(
      f"dataset.label_noise.class_map={class_map} must hold {num_classes} classes in [0, {num_classes})"
    )
  generator = np.random.default_rng(seed)
  drawn = generator.permutation(labels.size)[: round(rate * labels.size)]
  replaced = generator.integers(num_classes, size=labels.size) if kind == "symmetric" else mapped[labels]
  noisy = labels.copy()
  noisy[drawn] = replaced[drawn]
  return noisy


def defaults() -> dict[str, Any]:
  """Returns the options of a config's section `dataset.label_noise`; rate 0 leaves the labels alone."""
  return options.keyword_defaults(noisy_labels)


def check(settings: dict[str, Any]) -> None:
  """Raises `UserError` if an option of `dataset.label_noise` is unknown or its value is out of range."""
  settings = {**defaults(), **settings}
  options.check_choice("dataset.label_noise.kind", settings["kind"], KINDS)
  options.check_settings("dataset.label_noise", settings["kind"], settings, defaults())
  options.check_fraction("dataset.label_noise.rate", settings["rate"], zero=True)
  options.check_positive("dataset.label_noise.seed", settings["seed"], zero=True)
  if settings["class_map"] and settings["kind"] != "asymmetric":
    raise options.UserError(
      f"dataset.label_noise.class_map={settings['class_map']} needs dataset.label_noise.kind='asymmetric'"
    )


def apply(source: Source, settings: dict[str, Any]) -> Source:
  """Adds noise to the training labels, keeps the true labels beside them, and covers both by the fingerprint.

  Raises:
    UserError: an option is wrong, the data set has no labels, or a class loses all its training samples.
  """
  check(settings)
  if not settings.get("rate", 0.0):
    return source
  true_labels = source.labels
  if true_labels is None:
    raise options.UserError(
      f"dataset.label_noise.rate={settings['rate']} needs labels, and dataset.name={source.name!r} has none"
    )
  labels = noisy_labels(true_labels, source.num_classes, **settings)
  check_classes(source.name, labels, source.num_classes)
  fingerprint = hashlib.sha256(source.fingerprint.encode() + labels.tobytes()).hexdigest()
  train = Dataset(source.train | {"labels": labels})
  return source._replace(train=train, true_labels=true_labels, fingerprint=fingerprint)
