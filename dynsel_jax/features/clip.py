"""Features of CLIP's image encoder (Radford et al., arXiv 2103.00020), projected to the space shared with texts.

RRD (arXiv 2603.04981, App. A.2) uses ViT-L/14. `encoder` is pure, the rest host-side. `B` is the batch size.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array

from dynsel_jax import options
from dynsel_jax.data import Source, gather
from dynsel_jax.features import images
from dynsel_jax.models import vit, vit_weights
from dynsel_jax.models.weights import Weights

__all__ = ["Clip", "clip", "encoder"]

# Statistics of the pixels that CLIP was trained on, divided by 255.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_FROM = "https://huggingface.co/openai/clip-vit-large-patch14/resolve/main/model.safetensors"


def encoder(sizes: vit.Sizes, side: int) -> Callable[[dict[str, Any], Array], Array]:
  """Returns a function of `{"tower": ..., "projection": [width, D]}` and images `[B, H, W, C]` uint8 to `[B, D]`."""
  tower = vit.Tower(sizes)

  def encode(params: dict[str, Any], inputs: Array) -> Array:
    pixels = gather.normalize(images.fit(inputs, side), MEAN, STD)
    stages: Any = tower.apply({"params": params["tower"]}, pixels)
    return stages["features"] @ params["projection"]

  return encode


class Clip:
  """The feature space of CLIP; see `clip`."""

  reads_labels = False

  def __init__(self, weights: Weights, batch_size: int):
    self._weights, self._batch_size = weights, batch_size
    self._sizes, self._side = vit_weights.clip_sizes(weights)
    self._projected = weights.shape("visual_projection.weight", 2)[0]

  @functools.cached_property
  def _content(self) -> str:
    return self._weights.digest()

  def settings(self) -> dict[str, Any]:
    """Returns the hash of the weights; their path does not matter."""
    return {"content": self._content}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the features of the training set, `[N, D]` float32, in its order; D is 768 for ViT-L/14.

    Raises:
      UserError: the samples are not images, or an array of the weights is missing or has another shape.
    """
    images.check("clip", source)
    projection = self._weights.take("visual_projection.weight", (self._projected, self._sizes.width)).T
    params = {"tower": vit_weights.clip_tower(self._weights, self._sizes, self._side), "projection": projection}
    return images.encode("clip", encoder(self._sizes, self._side), params, source.train["inputs"], self._batch_size)


def clip(*, path: str = "", batch_size: int = 64) -> Clip:
  """Opens CLIP's image encoder with Hugging Face's weights; the architecture follows from the shapes of the arrays.

  `path` is a `model.safetensors` or the folder that contains it; its text encoder is not read. Images are resized to
  the side that the weights expect, 224 for ViT-L/14, and normalised as in CLIP's training.

  Raises:
    UserError: the file does not exist, does not contain a CLIP model, or `batch_size` is less than 1.
  """
  options.check_positive("features.batch_size", batch_size)
  if not path or not pathlib.Path(path).exists():
    raise options.UserError(f"features.path={path!r} does not exist; to get CLIP ViT-L/14's weights: {_FROM}")
  return Clip(Weights("features.path", pathlib.Path(path)), batch_size)
