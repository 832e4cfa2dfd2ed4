"""Benchmark of a streamed set's loader, against processes that do nothing but decode, one per core."""

import concurrent.futures
import multiprocessing
import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np
import PIL.Image

from dynsel_jax.data import image_decoding, image_ops, stream, stream_sets
from experiments.benchmarks import alternate, integer

__all__ = ["benchmark_stream"]

WIDTH, HEIGHT, QUALITY = 500, 375, 92  # a typical size in ImageNet, about 110 kB per file
IMAGE_SIZE, BATCH_SIZE, PAIRS = 224, 64, 5


def benchmark_stream(num_images: str = "4096") -> None:
  """Prints the images per second of the loader, and of one process per core that reads, decodes and crops.

  Args:
    num_images: how many JPEG files to write and read.
  """
  count = integer("num_images", num_images, 2)  # one for each class
  with tempfile.TemporaryDirectory() as folder:
    _write(pathlib.Path(folder), count)
    source = stream_sets.load("folder", data_dir=folder, cache_dir=f"{folder}/cache", image_size=IMAGE_SIZE)
    plan = np.random.default_rng(0).permutation(count).astype(np.int32)
    slots = np.arange(-(-count // BATCH_SIZE) * BATCH_SIZE).reshape(-1, BATCH_SIZE)
    paths, cores = sorted(map(str, pathlib.Path(folder, "train").rglob("*.jpeg"))), os.cpu_count() or 1
    parts = [paths[core::cores] for core in range(cores)]
    spawned = multiprocessing.get_context("spawn")  # a process with threads must not be forked
    with concurrent.futures.ProcessPoolExecutor(cores, mp_context=spawned) as pool:

      def ours() -> None:
        for _ in stream.read_ahead(source.train, plan, slots, generators=np.random.default_rng):
          pass

      def limit() -> None:
        list(pool.map(_decode, parts))

      first, second, ratio = alternate(ours, limit, PAIRS)
  print(f"stream: {count / first:.0f} images/s, limit of {cores} cores {count / second:.0f}, ratio {1 / ratio:.3f}")


def _decode(paths: Sequence[str]) -> None:
  """Decodes and crops images, one after another."""
  generator = np.random.default_rng(0)
  for path in paths:
    image = image_decoding.decode(pathlib.Path(path).read_bytes(), "RGB").image
    image_ops.pixels(image_ops.random_resized_crop(generator, image, IMAGE_SIZE))


def _write(folder: pathlib.Path, count: int) -> None:
  """Writes JPEG files that take as long to decode as photographs: noise at every scale."""
  generator = np.random.default_rng(0)
  for split, size in (("train", count), ("test", 2)):
    for index in range(size):
      path = folder / split / str(index % 2) / f"{index:06}.jpeg"
      path.parent.mkdir(parents=True, exist_ok=True)
      _photograph(generator).save(path, quality=QUALITY)


def _photograph(generator: np.random.Generator) -> PIL.Image.Image:
  pixels = np.full((HEIGHT, WIDTH, 3), 128.0)
  for scale in (2, 4, 8, 16, 32, 64, 128):
    noise = generator.integers(0, 256, (-(-HEIGHT // scale), -(-WIDTH // scale), 3), np.uint8)
    enlarged = PIL.Image.fromarray(noise).resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC)
    pixels += (np.asarray(enlarged, float) - 128) * scale**0.5 / 9
  return PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
