"""Predicts with the model of a run, and writes a CSV file with a row for each sample.

    python -m experiments.predict --workdir=runs/digits --inputs=FOLDER|FILE [--out=predictions.csv]

The inputs are what the run's data set holds: image files or a folder of them, texts as CSV or JSON Lines, or arrays in
a file .npy or .npz; they are decoded, tokenised and normalised as they were for the run. Where they tell the labels, by
folders named like the classes, a column, or an array "labels" or "targets", the accuracy of each class is shown, too.
"""

import csv
import os
import sys

import numpy as np
from absl import flags

from dynsel_jax import options, runs
from dynsel_jax.data.inputs import Inputs
from experiments import cli

__all__ = ["by_class", "main", "rows"]


def rows(run: runs.Trained, given: Inputs, predicted: np.ndarray) -> list[list[str]]:
  """Returns the CSV file's rows, the first of which names the columns.

  Args:
    run: the run whose model predicted.
    given: n samples.
    predicted: of them, as `run.predict` returns it.
  """
  known = given.known if given.known is not None else ()
  if run.task != "classification":
    header = ["input", "predicted", "target"][: 3 if len(known) else 2]
    columns = [given.names, map(_number, predicted), *([map(_number, known)] if len(known) else [])]
    return [header, *map(list, zip(*columns, strict=True))]
  names = run.class_names
  header = ["input", "predicted", "probability", "label"][: 4 if len(known) else 3]
  best = predicted.argmax(axis=1)
  columns = [given.names, [names[label] for label in best], map(_number, predicted.max(axis=1))]
  columns += [[names[label] for label in known]] if len(known) else []
  return [header, *map(list, zip(*columns, strict=True))]


def by_class(class_names: tuple[str, ...], labels: np.ndarray, best: np.ndarray) -> str:
  """Returns a table with a line for each class that occurs: its samples, how many of them are predicted right, and
  how many of the predictions of this class are right.

  Args:
    class_names: in the order of the labels.
    labels: `[n]` int, the true ones.
    best: `[n]` int, the predicted ones.
  """
  width = max(map(len, class_names))
  lines = [f"{'class':{width}}  samples  right of samples  right of predictions"]
  for label, name in enumerate(class_names):
    of_class, predicted = labels == label, best == label
    if of_class.any() or predicted.any():
      right = int((of_class & predicted).sum())
      shown = options.printable(name)
      counts = f"{_fraction(right, of_class.sum()):>16}  {_fraction(right, predicted.sum()):>20}"
      lines.append(f"{shown:{width}}  {int(of_class.sum()):7,}  {counts}")
  return "\n".join(lines)


def _fraction(part: int, whole: int) -> str:
  return f"{part / whole:.1%}" if whole else "-"


def _number(value: float) -> str:
  return f"{value:.6g}"


def main(workdir: str, inputs: str, out: str = "") -> None:
  """Predicts, writes the file, and says how good the predictions are where that is known.

  Args:
    workdir: the folder of the run.
    inputs: the file or folder to predict.
    out: the CSV file to write, by default `predictions.csv` in the workdir.
  """
  run = runs.load(workdir)
  given = run.read(options.expand_home("inputs", inputs))
  out = options.expand_home("out", out) or os.path.join(run.path, "predictions.csv")
  predicted = run.predict(given)
  try:
    with open(out, "w", newline="") as file:
      csv.writer(file).writerows(rows(run, given, predicted))
  except OSError as error:
    raise options.UserError(f"out={out} cannot be written: {error.strerror}") from None
  if given.known is not None and run.task == "classification":
    best = predicted.argmax(axis=1)
    print(by_class(run.class_names, given.known, best))
    print(f"accuracy {np.mean(best == given.known):.2%} on {len(best):,} samples")
  elif given.known is not None:
    print(f"mean squared error {np.mean((predicted - given.known) ** 2):.6g} on {len(predicted):,} samples")
  print(f"{len(predicted):,} predictions in {options.printable(out)}", file=sys.stderr)


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "The folder of the run.", required=True)
  flags.DEFINE_string("inputs", None, "The file or folder to predict.", required=True)
  flags.DEFINE_string("out", "", "The CSV file to write; by default predictions.csv in the workdir.")
  cli.run(lambda: main(flags.FLAGS.workdir, flags.FLAGS.inputs, flags.FLAGS.out))
