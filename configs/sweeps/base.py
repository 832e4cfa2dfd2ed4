"""How a sweep is written down: a config, and axes whose points are combined. Host-side, no arrays.

A sweep file has `get_sweep(arguments)`, which returns a `Sweep`:

    def get_sweep(arguments: str = "") -> base.Sweep:
      chosen = base.parse(arguments, seeds=3)
      return base.Sweep("configs/cifar10.py:size=cpu", [
        base.methods(("full", "random", "rs2"), keep_fraction=0.3),
        base.seeds(chosen["seeds"]),
      ])

An axis is a list of `Point`s, so that two of them are joined with `+`, and a point may set what only its own method
has. A cell takes one point of each axis; its name, and its run's folder, is theirs: `rs2_keep0.3-seed1`.
"""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from dynsel_jax import options, selectors
from dynsel_jax.offline import factor_stage

__all__ = [
  "Axis",
  "Cell",
  "Point",
  "Sweep",
  "cells",
  "config_of",
  "converged",
  "field",
  "image_methods",
  "image_points",
  "methods",
  "needs_no_file",
  "parse",
  "seeds",
  "with_features",
]


class Point(NamedTuple):
  """One value of an axis."""

  name: str  # letters, digits, "_" and ".", as it is part of a folder's name
  variants: Mapping[str, str]  # of the config, as behind its colon
  fields: Mapping[str, Any]  # of the config, by dotted names


Axis = Sequence[Point]


class Sweep(NamedTuple):
  """A config, as the flag --config takes it, and the axes. The last axis, most often the seeds, gives the columns."""

  config: str
  axes: Sequence[Axis]
  fields: Mapping[str, Any] = MappingProxyType({})  # of every cell


class Cell(NamedTuple):
  """One run of a sweep."""

  row: str  # the names of its points but the last
  column: str  # the name of the last
  config: str  # as the flag --config takes it
  fields: Mapping[str, Any]

  @property
  def name(self) -> str:
    """The name of the run's folder."""
    return f"{self.row}-{self.column}" if self.row else self.column


def cells(sweep: Sweep) -> list[Cell]:
  """Returns every combination of the axes' points, the last axis slowest: one seed of everything comes first.

  Raises:
    UserError: two cells have the same name, or there is none.
  """
  *first, last = sweep.axes
  combined = [_cell(sweep, (*points, end)) for end in last for points in itertools.product(*first)]
  names = [cell.name for cell in combined]
  if not names or len(set(names)) < len(names):
    twice = sorted({name for name in names if names.count(name) > 1})
    raise options.UserError(f"the sweep has {'two cells called ' + twice[0] if twice else 'no cell'}")
  return combined


def _cell(sweep: Sweep, points: tuple[Point, ...]) -> Cell:
  path, _, variants = sweep.config.partition(":")
  named = [f"{key}={value}" for point in points for key, value in point.variants.items()]
  whole = ",".join(filter(None, (variants, *named)))
  fields = dict(sweep.fields)
  for point in points:
    fields |= point.fields
  row = "-".join(point.name for point in points[:-1])
  return Cell(row, points[-1].name, f"{path}:{whole}" if whole else path, fields)


def methods(names: Iterable[str], **settings: Any) -> list[Point]:
  """Returns a point for each method; each of the `settings` goes to the methods that have such an option."""
  points = []
  for name in names:
    known = selectors.defaults(name)
    fitting = {option: value for option, value in settings.items() if option in known}
    label = "".join(f"_{_label(option, value)}" for option, value in fitting.items())
    fields = {f"selector.{option}": value for option, value in fitting.items()}
    points.append(Point(f"{name}{label}", {"selector": name}, fields))
  return points


def field(name: str, values: Iterable[Any]) -> list[Point]:
  """Returns a point for each value of the config's field `name`, for example "learning_rate"."""
  return [Point(_label(name.rpartition(".")[2], value), {}, {name: value}) for value in values]


def seeds(count: int) -> list[Point]:
  """Returns a point for each of the seeds 0 to `count` - 1."""
  return field("seed", range(count))


def needs_no_file() -> list[str]:
  """Returns the registered methods that a run can use as it is: all columns that they read are made for them."""
  return [name for name in selectors.METHODS if set(selectors.columns(name)) <= set(factor_stage.COLUMNS)]


def config_of(chosen: Mapping[str, Any]) -> str:
  """Returns what the flag --config takes: the arguments `config`, with `size`, and `model` where one is named."""
  model = f",model={chosen['model']}" if chosen["model"] else ""
  return f"{chosen['config']}:size={chosen['size']}{model}"


def image_points(features: str = "", keep_fraction: float = 0.3) -> list[Point]:
  """Returns the methods that a study of small images compares, with the share of those that keep an exact one.

  ESWP stands as its authors have it: its keep_fraction is of what is then thinned to a quarter.

  Args:
    features: the path of an array file for rrd, which reads pixels otherwise.
    keep_fraction: that share.
  """
  full, random, rrd, *others = methods(
    ("full", "random", "rrd", "rs2", "es", "infobatch", "ucb", "rcap", "kakurenbo", "seta"),
    keep_fraction=keep_fraction,
  )
  return [full, random, with_features(rrd, features), *others, *methods(("eswp",))]


def image_methods(config: str, arguments: str) -> Sweep:
  """Returns the sweep over `image_points`.

  Args:
    config: a file of configs/.
    arguments: `seeds=N`; `size=full` for the paper's recipe; `epochs=N` instead of the recipe's; `features=FILE`, an
      array file for rrd, which reads pixels otherwise.

  Raises:
    UserError: an argument is wrong.
  """
  chosen = parse(arguments, seeds=3, size="cpu", epochs=0, features="")
  axes = [image_points(chosen["features"]), seeds(chosen["seeds"])]
  length = {"epochs": chosen["epochs"]} if chosen["epochs"] else {}
  return Sweep(f"{config}:size={chosen['size']}", axes, length)


def converged(config: str) -> dict[str, Any]:
  """Returns fields under which full training of `config` at size=cpu has converged: 30 epochs with flips alone.

  Crops would leave a model this small far from it. 60 epochs add 0.1 points on CIFAR-10 and none on Fashion-MNIST,
  where a model of half the time is enough (one seed each).
  """
  width = {"model.width": 24} if pathlib.PurePath(config).stem == "fashion_mnist" else {}
  return {"epochs": 30, "dataset.augmentations": ("flip",), **width}


def with_features(point: Point, path: str) -> Point:
  """Returns the point with its features read from the array file `path`, or as it is where that is empty."""
  if not path:
    return point
  return Point(point.name, {**point.variants, "features": "file"}, {**point.fields, "features.path": path})


def parse(arguments: str, **defaults: Any) -> dict[str, Any]:
  """Reads a sweep's `key=value,key=value`, each value of its default's type.

  Raises:
    UserError: a part is not `key=value`, a key is not one of `defaults`, or a value is not of its type.
  """
  chosen = dict(defaults)
  for part in filter(None, arguments.split(",")):
    key, equals, value = part.partition("=")
    if not equals:
      raise options.UserError(f"sweep argument {part!r} is not key=value")
    options.check_choice("sweep argument", key, defaults)
    try:
      chosen[key] = type(defaults[key])(value)
    except ValueError:
      raise options.UserError(f"sweep argument {part!r} must be {type(defaults[key]).__name__}") from None
  return chosen


def _label(option: str, value: Any) -> str:
  name = option.removesuffix("_fraction")
  return f"{name}_{value}" if name[-1].isdigit() else f"{name}{value}"
