"""Measures speed as ratios against a reference that is timed in the same program.

    python -m experiments.benchmark step          a training step against a hand-written Flax loop
    python -m experiments.benchmark thinned       a step of ES, on a quarter of the batch it scores, against a plain one
    python -m experiments.benchmark decoder       a decoder's steps beside transformers', thinned, and its loss's memory
    python -m experiments.benchmark sae           a step of the sparse autoencoder against a matrix product and PyTorch
    python -m experiments.benchmark scoring       both factor scores of 1.28 million samples from stored codes
    python -m experiments.benchmark sampler       a batch through a Sampler, beside a permutation and InfoBatch
    python -m experiments.benchmark selecting     one epoch's selection and order, every method, against numpy
    python -m experiments.benchmark stream        images/s of a streamed set's loader against the cores' decoding limit
    python -m experiments.benchmark gpu [SECONDS [FOLDER]]    all that has to be fast on a GPU, with profiles
    python -m experiments.benchmark fast FILE     seconds and accuracy of the fast recipe of CIFAR-10, over seeds
    python -m experiments.benchmark subset        training seconds of `random` at 30 % against `full`, on digits
    python -m experiments.benchmark subset cifar10    the same on CIFAR-10, two epochs of each

Seconds are medians of repeated calls, each awaited. A ratio is the median over pairs of calls, made alternately. Let
nothing else run at the same time.
"""

import contextlib
import inspect
import io
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence

import jax
import ml_collections

import experiments
from configs import cifar10, digits
from dynsel_jax import offline, options
from dynsel_jax.training import setup
from experiments import cli, command_help, programs
from experiments.benchmarks import (
  alternate,
  clock,
  factors,
  fast_recipe,
  gpu,
  language,
  sampler,
  selecting,
  steps_of,
  stream,
)


def _built(config: ml_collections.ConfigDict) -> setup.Run:
  """Builds a run on synthetic data on one device."""
  source = steps_of.random_images(12_800, 500)
  return setup.build(setup.parts(config, source, jax.devices()[:1]), setup.table_of(source))


def benchmark_step(model: str = "resnet_patch") -> None:
  """Prints the seconds of our step and of the plain Flax step, at batch size 128 on 32x32 images."""
  config = cifar10.get_config(f"size=cpu,selector=full,model={model}")
  run = _built(config)
  steps = 10
  reference = steps_of.one_by_one(steps_of.plain_flax(run, config), steps)
  first, second, ratio = alternate(steps_of.stepping(run, 0, steps), reference, 15)
  print(f"step {model}: ours {clock(first / steps)}, plain Flax {clock(second / steps)}, ratio {ratio:.3f}")


def benchmark_thinned(model: str = "resnet_patch") -> None:
  """Prints the seconds of a step that scores 128 images and trains on 32 of them, and of a plain step on all 128.

  If a backward pass takes as long as two forward passes, the ratio is (128 + 32 + 64) / (3 * 128) = 0.583.
  """
  config = cifar10.get_config(f"size=cpu,selector=es,model={model}")
  run = _built(config)
  epoch, steps = config.epochs // 2, 10  # an epoch in the middle, where ES thins
  pair = (steps_of.stepping(run, epoch, steps, thinned=thinned) for thinned in (True, False))
  thinned, plain, ratio = alternate(*pair, 25)
  print(f"thinned {model}: {clock(thinned / steps)}, plain {clock(plain / steps)}, ratio {ratio:.3f}")


def benchmark_subset(name: str = "digits") -> None:
  """Prints the training seconds of `random` at keep_fraction 0.3 against those of `full`, for the same epochs."""
  options.check_choice("data set", name, SUBSETS)
  get_config, epochs, pairs = SUBSETS[name]

  def training_seconds(selector: str) -> float:
    config = get_config(f"size=cpu,selector={selector}")
    config.epochs = epochs
    config.checkpoint_every_steps = 0  # writing a checkpoint in the background would slow the training that is timed
    with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stdout(io.StringIO()):
      return offline.train_and_evaluate(config, workdir).summary["seconds"]["training"]

  taken = [(training_seconds("random"), training_seconds("full")) for _ in range(pairs)]
  random, full = (statistics.median(column) for column in zip(*taken, strict=True))
  ratio = statistics.median(one / other for one, other in taken)
  print(f"subset {name}: random {clock(random)}, full {clock(full)}, ratio {ratio:.3f}")


SUBSETS = {"cifar10": (cifar10.get_config, 2, 1), "digits": (digits.get_config, 30, 5)}  # epochs, pairs of runs
BENCHMARKS: dict[str, Callable[..., None]] = {
  "decoder": language.benchmark_decoder,
  "fast": fast_recipe.benchmark_fast,
  "gpu": gpu.benchmark_gpu,
  "sae": factors.benchmark_sae,
  "sampler": sampler.benchmark_sampler,
  "scoring": factors.benchmark_scoring,
  "selecting": selecting.benchmark_selecting,
  "step": benchmark_step,
  "stream": stream.benchmark_stream,
  "subset": benchmark_subset,
  "thinned": benchmark_thinned,
}


def main(arguments: Sequence[str]) -> int:
  """Runs the benchmark named by the first argument, with the other arguments; returns the exit status."""
  if command_help.asks_for_help(arguments):
    print(__doc__.strip())
    return 0
  experiments.listen()
  cli.set_xla_defaults()
  programs.keep()
  try:
    name, *given = arguments or [""]
    options.check_choice("benchmark", name, BENCHMARKS)
    most = len(inspect.signature(BENCHMARKS[name]).parameters)
    if len(given) > most:
      raise options.UserError(f"benchmark {name}: unexpected argument {given[most]!r}; it takes at most {most}")
    BENCHMARKS[name](*given)
  except options.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("stopped", file=sys.stderr)
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
