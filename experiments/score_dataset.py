"""Writes a score file: static scores of a training set from one proxy run, for selectors that keep a fixed subset.

    python -m experiments.score_dataset --config=configs/digits.py --workdir=runs/digits_scores
    python -m experiments.train --config=configs/digits.py:selector=top \
        --config.scores.path=runs/digits_scores/scores.npz --config.selector.column=el2n --workdir=runs/digits_el2n

The proxy run is plain training by the config, whatever its selector. If it is stopped, the same command continues it
and gives the same file.
"""

import pathlib

import ml_collections
from absl import flags

from dynsel_jax import data, options
from dynsel_jax.offline import proxy_scores, score_file
from dynsel_jax.offline.plain_config import plain_config
from dynsel_jax.training import parallel
from experiments import cli

_SCORES = flags.DEFINE_list(
  "scores", list(proxy_scores.DEFAULT_SCORES), f"Scores to make, of {', '.join(proxy_scores.SCORES)}."
)
_WINDOW = flags.DEFINE_integer("window", 10, "Length in epochs of the sliding window of dual, dyn_unc and tdds.")
_EARLY_EPOCHS = flags.DEFINE_integer(
  "early_epochs", 10, "Number of first epochs over which el2n and grand are averaged."
)


def main(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Scores the set, and prints where the file is."""
  proxy_scores.check(config, _SCORES.value, _WINDOW.value)
  source = data.prepare(config.dataset.to_dict(), config.cache_dir)
  recipe = plain_config(config, "full").to_dict()
  settings = {"scores": _SCORES.value, "window": _WINDOW.value, "early_epochs": _EARLY_EPOCHS.value}
  columns = proxy_scores.score(config, workdir, **settings, prepare=lambda *_: source)
  if parallel.is_first_process():
    path = pathlib.Path(workdir, "scores.npz")
    score_file.write(path, columns, source.fingerprint, {"config": recipe, **settings})
    print(options.printable(f"{path}: {', '.join(columns)} of {source.num_samples:,} samples"))


if __name__ == "__main__":
  cli.run_on_config(main)
