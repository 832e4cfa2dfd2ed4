"""What is said when a run keeps another fraction of the training set than `selector.keep_fraction` names. Host-side."""

from collections.abc import Mapping
from typing import Any

import ml_collections

__all__ = ["of_epoch", "of_run"]

_TOLERANCE = 0.2  # of the nominal fraction

# Options whose epochs train on the full data, by section.
_FULL_DATA = {
  "selector": ("refinement", "anneal_first", "anneal_last", "full_data_from"),
  "wrappers.annealed": ("first", "last"),
  "wrappers.warmed_up": (),
}


def _nominal(config: ml_collections.ConfigDict) -> float | None:
  nominal = config.selector.get("keep_fraction")
  return nominal if isinstance(nominal, float) else None


def of_epoch(
  config: ml_collections.ConfigDict, size: int, num_samples: int, epoch: int, info: Mapping[str, Any]
) -> str:
  """Returns a line on an epoch that keeps a fraction far from the nominal one, "" if it does not.

  Args:
    config: of the run.
    size: number of samples that the epoch keeps.
    num_samples: N.
    epoch: counted from 0.
    info: of the selector; an epoch on the full data is no deviation, even where a wrapper keeps a few samples out.
  """
  nominal = _nominal(config)
  if nominal is None or size == num_samples or info.get("full_data") or "volume" in info:  # `pods` sets the number
    return ""
  if abs(size / num_samples - nominal) <= max(_TOLERANCE * nominal, 1 / num_samples):
    return ""
  return (
    f"selector={config.selector.name} keeps {size / num_samples:.1%} of the training set in epoch {epoch + 1}, where"
    f" selector.keep_fraction={nominal:g}: each class keeps at least one"
    " sample, or the method decides the number itself"
  )


def of_run(config: ml_collections.ConfigDict, realised: float, full_epochs: int) -> str:
  """Returns a line on a run that kept a fraction far from the nominal one since epochs took the full data, else "".

  Args:
    config: of the run.
    realised: the fraction of the training set that an epoch trained on, on average.
    full_epochs: number of epochs on the full data.
  """
  nominal = _nominal(config)
  if nominal is None or not full_epochs or abs(realised - nominal) <= _TOLERANCE * nominal:
    return ""
  held = {"selector": config.selector, **{f"wrappers.{k}": v for k, v in config.get("wrappers", {}).items()}}
  fields = [
    f"{section}.{name}" if name else section
    for section, names in _FULL_DATA.items()
    if section in held
    for name in (names or ("",))
    if not name or name in held[section]
  ]
  change = f"; {', '.join(fields)} or more epochs change that" if fields else ""
  return (
    f"selector={config.selector.name} kept {realised:.1%} of the training set per epoch on average, where"
    f" selector.keep_fraction={nominal:g}: {full_epochs} of {config.epochs} epochs took the full data{change}"
  )
