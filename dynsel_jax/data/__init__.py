"""Data sets as dicts of arrays, and the way from sample indices to a batch."""

from collections.abc import Mapping
from typing import Any

from dynsel_jax import options
from dynsel_jax.data import noise, stream_sets, text
from dynsel_jax.data.source import Dataset, Source, from_arrays, num_samples
from dynsel_jax.data.sources import defaults, load

__all__ = ["Dataset", "Source", "defaults", "from_arrays", "load", "num_samples", "prepare"]

_OF_EVERY_SET = ("name", "data_dir", "augmentations", "label_noise", "stream")


def prepare(section: Mapping[str, Any], cache_dir: str = "") -> Source:
  """Returns the data set that a config's section `dataset` describes, with its label noise.

  Args:
    section: as `configs/base.py` makes it; with `stream` true, the images stay on disk (`stream_sets.load`).
    cache_dir: see `load`.

  Raises:
    UserError: the set cannot be loaded, or a value of the section is wrong.
  """
  options.check_present("dataset", section, ("name",))
  settings = {name: value for name, value in section.items() if name not in _OF_EVERY_SET}
  label_noise = dict(section.get("label_noise", {}))
  noise.check(label_noise)
  name, data_dir = section["name"], section.get("data_dir") or None
  if "tokenizer" in settings:
    options.check_settings("dataset", name, settings, text.defaults())
    source = text.load(name, **settings)
  elif section.get("stream"):
    options.check_settings("dataset", name, settings, stream_sets.defaults())
    source = stream_sets.load(name, data_dir=data_dir, cache_dir=cache_dir, **settings)
  else:
    source = load(name, data_dir=data_dir, cache_dir=cache_dir, **settings)
  return noise.apply(source, label_noise)
