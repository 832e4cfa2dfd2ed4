"""Describes a sweep: a config, and axes whose points are combined. Host-side, no arrays.

A sweep file has a function `get_sweep(arguments)`, which returns a `Sweep`:

    def get_sweep(arguments: str = "") -> base.Sweep:
      chosen = base.parse(arguments, seeds=3)
      return base.Sweep("configs/cifar10.py:size=cpu", [
        base.methods(("full", "random", "rs2"), keep_fraction=0.3),
        base.seeds(chosen["seeds"]),
      ])

An axis is a list of `Point`s; two lists can be joined with `+`, and a point may set options that only its own method
has. A cell combines one point of each axis. The cell, and the folder of its run, is named by its points:
`rs2_keep0.3-seed1`.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from dynsel_jax import options, selectors
from dynsel_jax.offline import factor_stage
from dynsel_jax.selectors import proxy

__all__ = [
  "Axis",
  "Cell",
  "Point",
  "Sweep",
  "budgets",
  "cells",
  "config_of",
  "converged",
  "field",
  "image_methods",
  "image_points",
  "methods",
  "needs_no_file",
  "numbers",
  "parse",
  "seeds",
  "with_features",
  "wrapped",
]


_Number = TypeVar("_Number", int, float)


class Point(NamedTuple):
  """A value on an axis."""

  name: str  # letters, digits, "_" and ".", since it is part of a folder's name
  variants: Mapping[str, str]  # of the config, as they stand after its colon
  fields: Mapping[str, Any]  # of the config, by dotted names


Axis = Sequence[Point]


class Sweep(NamedTuple):
  """A config and the axes."""

  config: str  # the value of the flag --config
  axes: Sequence[Axis]  # the last one, usually the seeds, gives the columns of the table
  fields: Mapping[str, Any] = MappingProxyType({})  # set in every cell


class Cell(NamedTuple):
  """One run of a sweep."""

  row: str  # the names of its points except the last
  column: str  # the name of the last point
  config: str  # the value of the flag --config
  fields: Mapping[str, Any]

  @property
  def name(self) -> str:
    """The name of the run's folder."""
    return f"{self.row}-{self.column}" if self.row else self.column


def cells(sweep: Sweep) -> list[Cell]:
  """Returns every combination of the axes' points; the last axis varies slowest, so that seed 0 of all comes first.

  Raises:
    UserError: two cells have the same name, or there is no cell.
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
  """Returns a point for each method; each of the `settings` is set for the methods that have this option."""
  points = []
  for name in names:
    known = selectors.defaults(name)
    fitting = {option: value for option, value in settings.items() if option in known}
    label = "".join(f"_{_label(option, value)}" for option, value in fitting.items())
    fields = {f"selector.{option}": value for option, value in fitting.items()}
    points.append(Point(f"{name}{label}", {"selector": name}, fields))
  return points


def field(name: str, values: Iterable[Any]) -> list[Point]:
  """Returns a point for each value of a field of the config, for example "learning_rate"."""
  return [Point(_label(name.rpartition(".")[2], value), {}, {name: value}) for value in values]


def seeds(count: int) -> list[Point]:
  """Returns a point for each seed from 0 to `count` - 1."""
  return field("seed", range(count))


def needs_no_file() -> list[str]:
  """Returns the registered methods that need no score file: a run makes all columns that they read."""
  made = {*factor_stage.COLUMNS, proxy.COLUMN}
  return [name for name in selectors.METHODS if set(selectors.columns(name)) <= made]


def budgets(names: Iterable[str], keep: Iterable[float], lengths: Sequence[int], features: str = "") -> list[Point]:
  """Returns methods at several costs, the larger one first.

  Args:
    names: the methods.
    keep: the keep fractions of the methods that have one, which run for the longest length.
    lengths: in epochs, of the methods that have none.
    features: an array file of features for rrd; empty takes its own.
  """
  found = []
  for name in names:
    if "keep_fraction" in selectors.defaults(name) and name != "eswp":  # eswp thins each batch beside
      made = [point for kept in sorted(keep, reverse=True) for point in methods([name], keep_fraction=kept)]
      made = [point._replace(fields={**point.fields, "epochs": max(lengths)}) for point in made]
    else:
      made = [Point(f"{name}_epochs{n}", {"selector": name}, {"epochs": n}) for n in sorted(lengths, reverse=True)]
    found += [with_features(point, features) if name == "rrd" else point for point in made]
  return found


def wrapped(point: Point, wrapper: str) -> Point:
  """Returns the point with a wrapper around its method."""
  return Point(f"{wrapper}_{point.name}", {**point.variants, "wrap": wrapper}, point.fields)


def config_of(chosen: Mapping[str, Any]) -> str:
  """Returns the value of the flag --config for the arguments `config`, `size` and, unless it is empty, `model`."""
  model = f",model={chosen['model']}" if chosen["model"] else ""
  return f"{chosen['config']}:size={chosen['size']}{model}"


def image_points(features: str = "", keep_fraction: float = 0.3) -> list[Point]:
  """Returns the methods that a study of small images compares.

  Args:
    features: an array file of features for rrd; empty takes pixels.
    keep_fraction: of the methods that have this option. ESWP keeps its authors' value, since it also thins each batch
      to a quarter.
  """
  full, random, rrd, *others = methods(
    ("full", "random", "rrd", "rs2", "es", "infobatch", "ucb", "rcap", "kakurenbo", "seta"),
    keep_fraction=keep_fraction,
  )
  return [full, random, with_features(rrd, features), *others, *methods(("eswp",))]


def image_methods(config: str, arguments: str) -> Sweep:
  """Returns the sweep over `image_points`.

  Args:
    config: a file in configs/.
    arguments: `seeds=N`; `size=full` for the paper's recipe; `epochs=N` in place of the recipe's; `features=FILE`, an
      array file of features for rrd in place of pixels.

  Raises:
    UserError: an argument is wrong.
  """
  chosen = parse(arguments, seeds=3, size="cpu", epochs=0, features="")
  axes = [image_points(chosen["features"]), seeds(chosen["seeds"])]
  length = {"epochs": chosen["epochs"]} if chosen["epochs"] else {}
  return Sweep(f"{config}:size={chosen['size']}", axes, length)


def converged(config: str) -> dict[str, Any]:
  """Returns fields with which full training of `config` at size=cpu converges: 30 epochs, with flips but no crops.

  With crops a model this small would be far from converged. 60 epochs add 0.1 points on CIFAR-10 and none on
  Fashion-MNIST (one seed each), where a model that takes half the time is enough.
  """
  width = {"model.width": 24} if pathlib.PurePath(config).stem == "fashion_mnist" else {}
  return {"epochs": 30, "dataset.augmentations": ("flip",), **width}


def with_features(point: Point, path: str) -> Point:
  """Returns the point with features from the array file `path`; unchanged if the path is empty."""
  if not path:
    return point
  return Point(point.name, {**point.variants, "features": "file"}, {**point.fields, "features.path": path})


def parse(arguments: str, **defaults: Any) -> dict[str, Any]:
  """Reads the arguments of a sweep, `key=value,key=value`; each value has the type of its default.

  Raises:
    UserError: a part is not `key=value`, a key is not one of `defaults`, or a value has the wrong type.
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


def numbers(argument: str, text: str, kind: Callable[[str], _Number]) -> list[_Number]:
  """Reads the value of a sweep's argument that has several numbers, joined by +.

  Args:
    argument: its name, for the message.
    text: the value.
    kind: int or float.

  Raises:
    UserError: a part is not such a number.
  """
  try:
    return [kind(part) for part in text.split("+")]
  except ValueError:
    named = "integers" if kind is int else "numbers"
    raise options.UserError(f"sweep argument '{argument}={text}' must be {named} joined by +") from None


def _label(option: str, value: Any) -> str:
  name = option.removesuffix("_fraction")
  return f"{name}_{value}" if name[-1].isdigit() else f"{name}{value}"
