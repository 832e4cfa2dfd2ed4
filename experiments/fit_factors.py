"""Runs the offline stage of RRD alone (features, sparse autoencoder, factors, scores), and reports on it.

    python -m experiments.fit_factors --config=configs/cifar10.py:features=file --workdir=runs/factors \
        --config.features.path=clip_vit_l14.npz

`experiments.train` with the same sections `features` and `factors` finds the results in the cache. The workdir receives

    factors.md        the report, with its plots (.png)
    factors.json      quality of the autoencoder, correlation of the scores, seconds, settings
    factors.npz       representativeness, rarity [N]; firing_frequency, class_spread [L]
    sae.npz           the autoencoder; --config.factors.sae=runs/factors/sae.npz scores another data set with it
    examples.npz      strongest samples, classes and images of the factors that the report shows
"""

import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import scipy

from dynsel_jax import data, options
from dynsel_jax.factors import examples, quality, sae_file
from dynsel_jax.offline import factor_stage
from dynsel_jax.report import factor_page
from dynsel_jax.runs import timing
from dynsel_jax.runs.workdir import check_writable
from experiments import cli

PARTS = ("features", "codes", "columns")  # attributes of `factor_stage.Stage`, each made from those before it
NUM_FACTORS, NUM_SAMPLES = 12, 10  # factors shown, as many common as rare ones, and samples of each factor
NUM_CLASSES, NUM_BEST = 10, 6  # classes shown, and samples of each with the highest scores


def prepare(config: ml_collections.ConfigDict, folder: pathlib.Path) -> tuple[data.Source, factor_stage.Stage]:
  """Returns the data set and the offline stage of a config, before any part of the stage is made.

  Raises:
    UserError: a value of the config is wrong, or `folder` cannot be written.
  """
  check_writable(str(folder))
  if "features" not in config:
    raise options.UserError("the config has no features; name them: --config=FILE:features=pixels")
  source = data.prepare(config.dataset.to_dict(), config.cache_dir)
  return source, factor_stage.Stage(config, source, timing.Timers())


def fit_factors(config: ml_collections.ConfigDict, folder: pathlib.Path) -> dict[str, Any]:
  """Runs the stage and writes its files; returns the content of `factors.json`.

  Raises:
    UserError: a value of the config is wrong.
  """
  source, stage = prepare(config, folder)
  seconds = {}
  for part in PARTS:
    start = time.perf_counter()
    jax.block_until_ready(getattr(stage, part))
    seconds[part] = round(time.perf_counter() - start, 3)

  columns = {name: np.asarray(column) for name, column in stage.columns.items()}
  summary = {
    "dataset": source.name,
    "data_fingerprint": source.fingerprint,
    "settings": {"features": config.features.to_dict(), "factors": config.factors.to_dict()},
    "num_samples": source.num_samples,
    "num_classes": source.num_classes,
    "class_names": source.class_names,
    "width": stage.features.shape[1],
    "num_latents": stage.sae.params.b_enc.shape[0],
    "fvu": float(stage.quality.fvu),
    "mean_l0": float(stage.quality.mean_l0),
    "dead_fraction": float(stage.quality.dead_fraction),
    "firing_fraction_edges": list(quality.HISTOGRAM_EDGES),
    "firing_fraction_counts": np.asarray(stage.quality.frequency_histogram).tolist(),
    "warnings": quality.warnings(stage.quality),
    "scores": {name: {"mean": float(x.mean()), "deviation": float(x.std())} for name, x in columns.items()},
    "correlation": _correlation(*columns.values()),
    "device": jax.devices()[0].device_kind,
    "seconds": seconds,
  }
  folder.mkdir(parents=True, exist_ok=True)
  sae_file.write_sae(folder / "sae.npz", stage.sae, k=config.factors.k, topk=config.factors.topk)
  np.savez(folder / "factors.npz", **columns, **stage.statistics._asdict())  # type: ignore[arg-type]
  shown = {**_factor_examples(stage, source), **_sample_examples(columns, source)}
  np.savez_compressed(folder / "examples.npz", **shown)  # type: ignore[arg-type]
  (folder / "factors.json").write_text(json.dumps(summary, indent=2) + "\n")
  factor_page.write(folder)
  return summary


def _correlation(one: np.ndarray, other: np.ndarray) -> dict[str, float | None]:
  """Returns two correlations of the scores, None if a score is constant."""
  if one.min() == one.max() or other.min() == other.max():
    return {"pearson": None, "spearman": None}
  correlations = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}
  return {name: float(correlation(one, other)[0]) for name, correlation in correlations.items()}


def _factor_examples(stage: factor_stage.Stage, source: data.Source) -> dict[str, np.ndarray]:
  """Returns the most common and the rarest factors that fire, with their strongest samples and their classes."""
  frequency = stage.statistics.firing_frequency
  rising = np.argsort(frequency, kind="stable")
  firing = rising[frequency[rising] > 0]
  shown = {"common": firing[::-1][:NUM_FACTORS], "rare": firing[:NUM_FACTORS]}
  labels = jnp.asarray(source.labels)
  arrays: dict[str, np.ndarray] = {}
  for group, latents in shown.items():
    placed = jnp.asarray(latents, jnp.int32)
    samples, values = examples.top_samples(stage.codes, placed, count=min(NUM_SAMPLES, len(labels)))
    counts = examples.class_counts(stage.codes, placed, labels, num_classes=source.num_classes)
    found = {"latents": latents, "samples": samples, "values": values, "class_counts": counts}
    if _has_images(source):
      found["images"] = source.train["inputs"][np.asarray(samples)]
    arrays |= {f"{group}_{name}": np.asarray(array) for name, array in found.items()}
  return arrays


def _sample_examples(columns: dict[str, np.ndarray], source: data.Source) -> dict[str, np.ndarray]:
  """Returns the images with the highest scores in some classes; {} for a set without images."""
  if not _has_images(source):
    return {}
  assert source.labels is not None  # or there would be no factor stage
  classes = np.unique(source.labels)[:NUM_CLASSES]
  members = [np.flatnonzero(source.labels == label) for label in classes]
  count = min(NUM_BEST, *(member.size for member in members))
  arrays = {"class_labels": classes}
  for name, score in columns.items():
    best = [member[np.argsort(-score[member], kind="stable")[:count]] for member in members]
    arrays[f"class_{name}_samples"] = np.array(best)
    arrays[f"class_{name}_images"] = source.train["inputs"][np.array(best)]
  return arrays


def _has_images(source: data.Source) -> bool:
  return source.train["inputs"].ndim == 4  # texts are rows of tokens, other inputs rows of numbers


def main(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Runs the stage, and prints a summary."""
  print(factor_page.closing_lines(fit_factors(config, pathlib.Path(workdir)), workdir))


if __name__ == "__main__":
  cli.run_on_config(main)
