"""Plots of factors and scores: histograms, a scatter plot, sheets of images. Host-side; writes no files."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from dynsel_jax.options import printable
from dynsel_jax.report import escape

__all__ = ["class_name", "factor_sheet", "firing_frequency", "largest_classes", "sample_sheet", "scores"]

INK, PALE, ACCENT = "#274060", "#9fb4c7", "#c8553d"
_LONGEST = 40  # characters of a class's name
INCH = 0.72  # the side of an image on a sheet
SMALL = 16  # images with fewer pixels per side are drawn pixel by pixel


def class_name(label: int, class_names: Sequence[str]) -> str:
  """Returns the name of a class, or "class 3" if it has no name or a number as its name."""
  name = printable(class_names[label] if class_names else str(label), _LONGEST)
  return f"class {name}" if name.isdigit() else name


def largest_classes(class_counts: np.ndarray, class_names: Sequence[str], most: int = 3) -> str:
  """Returns the largest classes among the samples of a factor, as in "frog 62 %, cat 20 %".

  Args:
    class_counts: `[C]` int32.
    class_names: C names; empty if the classes have none.
    most: the maximum number of classes.
  """
  fractions = class_counts / max(1, class_counts.sum())
  largest = np.argsort(-fractions, kind="stable")[:most]
  return ", ".join(f"{class_name(label, class_names)} {fractions[label]:.0%}" for label in largest if fractions[label])


def firing_frequency(frequency: np.ndarray, num_samples: int, common_fraction: float) -> Figure:
  """Draws the histogram of the latents' firing frequencies, on a logarithmic axis.

  Args:
    frequency: `[L]` int32, the number of samples in which each latent fires.
    num_samples: N, the size of the data set.
    common_fraction: the fraction of the latents that count as common; they are shaded.
  """
  figure = Figure(figsize=(7, 3.6), layout="constrained")
  axes = figure.add_subplot()
  alive = frequency[frequency > 0]
  most = max(2, frequency.max())
  edges = np.unique(np.round(np.geomspace(1, most + 1, 31)))
  axes.hist(alive, edges.tolist(), color=INK)
  num_common = max(1, int(common_fraction * frequency.size + 1e-6))
  least = max(1, np.sort(frequency)[-num_common])
  axes.axvspan(least, most + 1, color=ACCENT, alpha=0.15, lw=0, label=f"the {num_common:,} common latents")
  axes.set(xscale="log", xlabel=f"samples in which a latent fires, of {num_samples:,}", ylabel="latents")
  axes.set_title(f"{alive.size:,} latents fire, {frequency.size - alive.size:,} never fire", loc="left", fontsize=10)
  axes.legend(frameon=False, loc="upper left")
  return _plain(figure)


def scores(columns: Mapping[str, np.ndarray], title: str) -> Figure:
  """Draws the distributions of two scores, and one score against the other.

  Args:
    columns: two scores by name, each `[N]` float32 in [0, 1].
    title: the title of the scatter plot.
  """
  figure = Figure(figsize=(10, 3.3), layout="constrained")
  panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
  for axes, (name, score) in zip(panels, columns.items(), strict=False):
    axes.hist(score, 60, range=(0, 1), color=INK)
    axes.axvline(score.mean(), color=ACCENT, lw=1.5, label=f"mean {score.mean():.3f}")
    axes.set(xlabel=name, ylabel="samples")
    axes.legend(frameon=False)
  (first, second), axes = columns.items(), panels[-1]
  drawn = axes.hexbin(first[1], second[1], gridsize=45, extent=(0, 1, 0, 1), norm=LogNorm(), cmap="viridis", mincnt=1)
  axes.set(xlabel=first[0], ylabel=second[0])
  axes.set_title(title, loc="left", fontsize=10)
  figure.colorbar(drawn, ax=axes, label="samples")
  return _plain(figure)


def factor_sheet(
  latents: np.ndarray,
  class_counts: np.ndarray,
  images: np.ndarray,
  samples: np.ndarray,
  *,
  num_samples: int,
  class_names: Sequence[str],
) -> Figure:
  """Draws one row per factor: its firing frequency, its classes, and the images in which it is strongest.

  Args:
    latents: `[S]` int32, the factors.
    class_counts: `[S, C]` int32, the samples of each class in which each factor fires.
    images: `[S, M, H, W, channels]` uint8, strongest first.
    samples: `[S, M]` int32, the index of each image, -1 where there is none.
    num_samples: N, the size of the data set.
    class_names: C names; empty if the classes have none.
  """
  rows, columns = samples.shape
  figure, axes = _sheet(rows, 4.8 + columns)
  for row, (latent, counts) in enumerate(zip(latents, class_counts, strict=True)):
    fires = counts.sum()
    of_classes = f"{np.count_nonzero(counts)} of {counts.size} classes"
    _words(axes, 0, row, f"latent {latent}\nfires in {fires:,} ({fires / num_samples:.2%})\n{of_classes}")
    _class_bars(axes, 2.1, row, counts, largest_classes(counts, class_names))
    for column in np.flatnonzero(samples[row] >= 0):
      _image(axes, 4.8 + column, row, images[row, column])
  return figure


def sample_sheet(images: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str]) -> Figure:
  """Draws one row per class: the images with the highest value of each score.

  Args:
    images: `[R, M, H, W, channels]` uint8 for each score, by its name.
    labels: `[R]` int32, the class of each row.
    class_names: C names; empty if the classes have none.
  """
  count = next(iter(images.values())).shape[1]
  width, gap = 1.4, 0.4  # room for the class name, and between two scores
  figure, axes = _sheet(len(labels), width + len(images) * (count + gap) - gap, head=0.35)
  for row, label in enumerate(labels):
    _words(axes, 0, row, class_name(label, class_names))
  for place, (score, shown) in enumerate(images.items()):
    left = width + place * (count + gap)
    axes.text(left, -0.1, f"highest {score}", fontsize=9)
    for row, column in np.ndindex(shown.shape[:2]):
      _image(axes, left + column, row, shown[row, column])
  return figure


def _sheet(rows: int, width: float, head: float = 0.05) -> tuple[Figure, Axes]:
  """Returns a figure with axes whose unit is one image with its margin; `head` units above the rows stay empty."""
  figure = Figure(figsize=(INCH * (width + 0.1), INCH * (rows + head)))
  axes = figure.add_axes((0, 0, 1, 1))
  axes.axis("off")
  axes.set_autoscale_on(False)
  axes.set(xlim=(-0.1, width), ylim=(rows, -head))
  return figure, axes


def _words(axes: Axes, x: float, row: int, text: str) -> None:
  lines = "\n".join(escape.plot(line) for line in text.split("\n"))
  axes.text(x, row + 0.46, lines, va="center", fontsize=7.5, linespacing=1.35)


def _class_bars(axes: Axes, x: float, row: int, counts: np.ndarray, text: str) -> None:
  """Draws one bar per class, 2.5 units wide in all from `x`, below `text`."""
  foot, step = row + 0.92, 2.5 / counts.size
  left, height = x + step * np.arange(counts.size), 0.62 * counts / max(1, counts.max())
  axes.bar(left, -height, 0.85 * step, foot, align="edge", color=PALE)
  axes.plot([x, x + 2.5], [foot, foot], color=PALE, lw=0.8)
  axes.text(x, row + 0.18, escape.plot(text, 3 * _LONGEST), fontsize=6.5)


def _image(axes: Axes, x: float, row: int, image: np.ndarray) -> None:
  axes.imshow(
    image[..., 0] if image.shape[-1] == 1 else image,
    cmap="gray",
    vmin=0,
    vmax=255,
    extent=(x, x + 0.92, row + 0.92, row),
    interpolation="nearest" if len(image) < SMALL else "lanczos",
    aspect="auto",
  )


def _plain(figure: Figure) -> Figure:
  for axes in figure.axes:
    axes.spines[["top", "right"]].set_visible(False)
  return figure
