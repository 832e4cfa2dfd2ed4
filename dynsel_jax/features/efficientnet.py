"""Features of EfficientNet-Lite0 (Tan & Le, arXiv 1905.11946), 1280 wide.

Lite0 uses ReLU6 and no squeeze-and-excitation. The weights come from an `.npz` file with batch normalisation folded
into the convolutions: a kernel `[k, k, in, out]` with the ending `.w` and a bias with the ending `.b` for each of
`stem`, `blockNN.e` (expand), `blockNN.d` (depthwise), `blockNN.p` (project) and `head`. `encoder` is pure, the rest
host-side. `B` is the batch size.
"""

import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax import cache, hashing, options
from dynsel_jax.data import Source
from dynsel_jax.features import images

__all__ = ["EfficientNet", "depthwise", "efficientnet", "encoder", "shapes"]

SIDE = 224
_STEM, _HEAD = 32, 1280
_IDLE = ("fc.w", "fc.b", "stride", "residual")  # arrays that are not read: a classifier, and the layout in `_blocks`


class _Block(NamedTuple):
  """An inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection."""

  name: str
  inputs: int
  expanded: int
  outputs: int
  kernel: int
  stride: int


def _blocks() -> list[_Block]:
  """Returns the blocks of Lite0."""
  stages = (  # expansion, width, number of blocks, stride of the first block, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
  )
  blocks: list[_Block] = []
  inputs = _STEM
  for expansion, outputs, count, stride, kernel in stages:
    for first in itertools.chain([True], [False] * (count - 1)):
      name = f"block{len(blocks):02d}"
      blocks.append(_Block(name, inputs, expansion * inputs, outputs, kernel, stride if first else 1))
      inputs = outputs
  return blocks


def shapes() -> dict[str, tuple[int, ...]]:
  """Returns the shapes of the arrays that the encoder reads, by their names in the file."""
  blocks = _blocks()
  kernels = {"stem": (3, 3, 3, _STEM), "head": (1, 1, blocks[-1].outputs, _HEAD)}
  for block in blocks:
    if block.expanded != block.inputs:
      kernels[f"{block.name}.e"] = (1, 1, block.inputs, block.expanded)
    kernels[f"{block.name}.d"] = (block.kernel, block.kernel, 1, block.expanded)
    kernels[f"{block.name}.p"] = (1, 1, block.expanded, block.outputs)
  arrays: dict[str, tuple[int, ...]] = {f"{name}.w": shape for name, shape in kernels.items()}
  return arrays | {f"{name}.b": shape[-1:] for name, shape in kernels.items()}


def depthwise(x: Array, kernel: Array, stride: int) -> Array:
  """Convolves each channel of `[B, H, W, C]` with its own kernel in `[k, k, 1, C]`; padding is TensorFlow's "SAME".

  A sum over shifted images, which XLA fuses: on CPU ten times as fast as its grouped convolution.
  """
  size = kernel.shape[0]
  sides = [-(-side // stride) for side in x.shape[1:3]]
  spans = [(side - 1) * stride + 1 for side in sides]
  pads = [max(span + size - 1 - whole, 0) for span, whole in zip(spans, x.shape[1:3], strict=True)]
  x = jnp.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)))
  total = jnp.zeros((x.shape[0], *sides, x.shape[3]), x.dtype)
  for row, column in itertools.product(range(size), repeat=2):
    shifted = x[:, row : row + spans[0] : stride, column : column + spans[1] : stride]
    total += shifted * kernel[row, column][None, None]
  return total


def encoder(params: dict[str, Array], inputs: Array) -> Array:
  """Maps images `[B, H, W, C]` uint8 to features `[B, 1280]` float32: the head's activations, averaged over space."""

  def biased(name: str, x: Array) -> Array:
    return x + params[f"{name}.b"].reshape(1, 1, 1, -1)

  def pointwise(name: str, x: Array) -> Array:
    return biased(name, x @ params[f"{name}.w"][0, 0])

  x = (images.fit(inputs, SIDE) - 127) / 128
  layout = ("NHWC", "HWIO", "NHWC")
  x = jax.lax.conv_general_dilated(x, params["stem.w"], (2, 2), "SAME", dimension_numbers=layout)
  x = jax.nn.relu6(biased("stem", x))
  for block in _blocks():
    branch = x
    if block.expanded != block.inputs:
      branch = jax.nn.relu6(pointwise(f"{block.name}.e", branch))
    branch = depthwise(branch, params[f"{block.name}.d.w"], block.stride)
    branch = jax.nn.relu6(biased(f"{block.name}.d", branch))
    branch = pointwise(f"{block.name}.p", branch)
    x = x + branch if x.shape == branch.shape else branch
  return jnp.mean(jax.nn.relu6(pointwise("head", x)), axis=(1, 2))


class EfficientNet:
  """The feature space of EfficientNet-Lite0; see `efficientnet`."""

  reads_labels = False

  def __init__(self, path: pathlib.Path, batch_size: int):
    self._params, self._batch_size = _read(path), batch_size
    self._content = hashing.content_digest(path)

  def settings(self) -> dict[str, Any]:
    """Returns the hash of the weights; their path does not matter."""
    return {"content": self._content}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the features of the training set, `[N, 1280]` float32, in its order.

    Raises:
      UserError: the samples are not images.
    """
    images.check("efficientnet", source)
    return images.encode("efficientnet", encoder, self._params, source.train["inputs"], self._batch_size)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the arrays of the file as float32.

  Raises:
    UserError: the file is not an `.npz` file, or an array is missing, unknown or of another shape.
  """
  where, expected = f"features.path={path}", shapes()
  held = cache.read_arrays("features.path", path)
  if "" in held:
    raise options.UserError(f"{where} is not an .npz file")
  arrays = {name: array.astype(np.float32) for name, array in held.items() if name not in _IDLE}
  for name in sorted(expected.keys() ^ arrays.keys()):
    words = "has no array" if name in expected else "has an array that EfficientNet-Lite0 does not use:"
    raise options.UserError(f"{where} {words} {name!r}")
  for name, shape in expected.items():
    if arrays[name].shape != shape:
      raise options.UserError(f"{where}: {name!r} has shape {arrays[name].shape}, the model needs {shape}")
  return arrays


def efficientnet(*, path: str = "", batch_size: int = 64) -> EfficientNet:
  """Opens EfficientNet-Lite0 with the weights in the `.npz` file `path`; images are resized to 224x224.

  Raises:
    UserError: the file does not exist, its arrays do not fit the network, or `batch_size` is less than 1.
  """
  options.check_positive("features.batch_size", batch_size)
  if not pathlib.Path(path).is_file():
    raise options.UserError(
      f"features.path={path!r} is not a file; it must be an .npz file with EfficientNet-Lite0's folded weights"
    )
  return EfficientNet(pathlib.Path(path), batch_size)
