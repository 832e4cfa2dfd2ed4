"""Scores from per-sample gradients: GraNd, in closed form for the last layer or in full, and MoSo. Pure and jit-able.

`loss_fn(params, sample)` returns the scalar loss of one sample, a slice of the leaves of `samples`. A model with batch
statistics must run in evaluation mode, so that no operation mixes samples. `loss_fn` is a static argument: pass the
same function at each checkpoint, since every new lambda is compiled again. Use clean views: the two passes of MoSo must
see the same inputs, although the code of MoSo draws a new augmentation in each.

`N` is the number of training samples, `C` the number of classes, `D` the width of the features.
"""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from dynsel_jax.coresets import dynamics

__all__ = ["GradientProducts", "LossFn", "grand", "grand_last_layer", "gradient_products", "moso"]


class LossFn(Protocol):
  """Returns the loss of one sample, `[]` float32."""

  def __call__(self, params: Any, sample: Any) -> Array: ...


class GradientProducts(NamedTuple):
  """Inner products of each sample's gradient g with itself and with the mean gradient m, at one set of parameters."""

  squared_norm: Array  # [N] float32, |g|^2; not finite if the gradient is not
  with_mean: Array  # [N] float32, <m, g>
  mean_squared_norm: Array  # [] float32, |m|^2
  num_samples: Array  # [] float32, number of samples with a finite gradient, over which m is averaged


def grand_last_layer(probabilities: Array, labels: Array, features: Array) -> Array:
  """Computes the norm of each sample's cross-entropy gradient in the weights and bias of the last layer, `[N]`.

  High is hard. The gradient is the outer product of (features, 1) and probabilities minus one-hot label. The score of
  Paul et al., arXiv 2107.07075, Sec. 2, uses all parameters (`grand`) and is averaged over runs (`dynamics.average`).
  DeepCore (arXiv 2204.08499) also uses the last layer, but divides by the batch size, so that the samples of a smaller
  last batch score too high.

  Args:
    probabilities: `[N, C]` float32.
    labels: `[N]` int32.
    features: `[N, D]` float32, the input of the last layer.
  """
  return dynamics.el2n(probabilities, labels) * jnp.sqrt(1.0 + jnp.sum(jnp.square(features), axis=-1))


@functools.partial(jax.jit, static_argnames=("loss_fn", "block"))
def grand(loss_fn: LossFn, params: Any, samples: Any, *, block: int = 32) -> Array:
  """Computes the norm of each sample's gradient in all parameters, `[N]` float32. High is hard.

  Paul et al., arXiv 2107.07075, Sec. 2. Far slower than `grand_last_layer`, since it computes every gradient.

  Args:
    loss_fn: the loss of one sample.
    params: the parameters at which to take the gradients.
    samples: arrays with leading axis N.
    block: number of gradients in memory at a time.
  """
  return jax.lax.map(lambda sample: optax.tree.norm(jax.grad(loss_fn)(params, sample)), samples, batch_size=block)


@functools.partial(jax.jit, static_argnames=("loss_fn", "block"))
def gradient_products(loss_fn: LossFn, params: Any, samples: Any, *, block: int = 32) -> GradientProducts:
  """Computes the products in two passes over the samples, the first for the mean gradient.

  Gradients that are not finite are excluded from the mean.

  Args:
    loss_fn: the loss of one sample.
    params: the parameters at which to take the gradients.
    samples: arrays with leading axis N.
    block: number of gradients in memory at a time.
  """
  gradient = jax.grad(loss_fn)

  def add_block(carry: tuple[Any, Array], part: Any) -> tuple[tuple[Any, Array], None]:
    gradients = jax.vmap(gradient, in_axes=(None, 0))(params, part)
    finite = jnp.isfinite(jax.vmap(lambda tree: optax.tree.norm(tree, squared=True))(gradients))
    total, count = carry
    total = jax.tree.map(lambda t, g: t + _sum_of_finite(finite, g), total, gradients)
    return (total, count + jnp.sum(finite, dtype=jnp.float32)), None

  def products(sample: Any) -> tuple[Array, Array]:
    own = gradient(params, sample)
    return optax.tree.norm(own, squared=True), optax.tree.vdot(mean, own)

  n = jax.tree.leaves(samples)[0].shape[0]
  whole = n - n % block
  carry = (optax.tree.zeros_like(params), jnp.float32(0))
  blocks = jax.tree.map(lambda x: x[:whole].reshape((whole // block, block, *x.shape[1:])), samples)
  carry, _ = jax.lax.scan(add_block, carry, blocks)
  (total, count), _ = add_block(carry, jax.tree.map(lambda x: x[whole:], samples)) if whole < n else (carry, None)
  mean = optax.tree.scale(1.0 / count, total)
  squared_norm, with_mean = jax.lax.map(products, samples, batch_size=block)
  return GradientProducts(squared_norm, with_mean, optax.tree.norm(mean, squared=True), count)


def moso(products: GradientProducts, learning_rate: Array | float) -> Array:
  """Computes one checkpoint's term of the moving-one-sample-out score (MoSo), `[N]` float32. High is worth keeping.

  For a sample with gradient g among n samples with the mean gradient m, the term is the learning rate times

    (2n - 3) / (n - 1)^2 |m|^2 - 1 / (n - 1)^2 |g|^2 + (2n - 4) / (n - 1)^2 <m - g / n, g>

  Tan et al., arXiv 2310.14664, following their code. With many samples the ranking is that of <m, g>. The score is the
  average over checkpoints drawn from a run (`dynamics.average`); the code takes the sum. n is the number of samples
  that the run was trained on; the code splits the data into 8 parts and trains on each. The code keeps equal counts by
  class, but masks by multiplication, so that the zeros of other classes rank above negative scores; `subsets.top` does
  not have this defect.

  Args:
    products: at the checkpoint's parameters.
    learning_rate: at the checkpoint.
  """
  n = products.num_samples
  over = learning_rate / jnp.square(n - 1.0)
  inner = products.with_mean - products.squared_norm / n
  return over * ((2.0 * n - 3.0) * products.mean_squared_norm - products.squared_norm + (2.0 * n - 4.0) * inner)


def _sum_of_finite(finite: Array, gradients: Array) -> Array:
  """Sums the finite rows of `[B, ...]`; selects rather than multiplies by 0, since 0 times NaN is NaN."""
  return jnp.sum(jnp.where(finite.reshape((-1,) + (1,) * (gradients.ndim - 1)), gradients, 0.0), axis=0)
