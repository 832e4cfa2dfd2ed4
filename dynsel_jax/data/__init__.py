"""Data sets as dicts of arrays: loading them, label noise, and gathering batches."""

from collections.abc import Mapping
from typing import Any

from dynsel_jax import options
from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[train]"):
  from dynsel_jax.data import documents, instructions, noise, stream_sets, text
  from dynsel_jax.data.source import Dataset, Source, from_arrays, num_samples
  from dynsel_jax.data.sources import defaults, is_path, load

__all__ = ["Dataset", "Source", "defaults", "from_arrays", "load", "num_samples", "prepare"]

_COMMON = ("name", "data_dir", "augmentations", "label_noise")  # fields of every data set's section


def prepare(section: Mapping[str, Any], cache_dir: str = "") -> Source:
  """Loads the data set that a config's section `dataset` describes, with its label noise.

  Args:
    section: as `recipes.get_config` makes it; if `stream` is true, the images stay on disk (`stream_sets.load`).
    cache_dir: see `load`.

  Raises:
    UserError: the data set cannot be loaded, or a value of the section is wrong.
  """
  options.check_present("dataset", section, ("name",))
  settings = {name: value for name, value in section.items() if name not in _COMMON}
  label_noise = dict(section.get("label_noise", {}))
  noise.check(label_noise)
  name, data_dir = section["name"], section.get("data_dir") or None
  own = is_path(name)  # a user's loader, whose options may have any name
  streamed = not own and settings.pop("stream", False)
  if "vocabulary" in settings and not own:
    options.check_settings("dataset", name, settings, documents.defaults())
    source = documents.load(name, **settings)
  elif "chat_template" in settings and not own:
    options.check_settings("dataset", name, settings, instructions.defaults())
    source = instructions.load(name, **settings)
  elif "tokenizer" in settings and not own:
    options.check_settings("dataset", name, settings, text.defaults())
    source = text.load(name, **settings)
  elif streamed:
    options.check_settings("dataset", name, settings, stream_sets.defaults())
    source = stream_sets.load(name, data_dir=data_dir, cache_dir=cache_dir, **settings)
  else:
    source = load(name, data_dir=data_dir, cache_dir=cache_dir, **settings)
  return noise.apply(source, label_noise)
