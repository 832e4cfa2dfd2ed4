"""SGD with lookahead, and larger steps for the biases of normalisations, after Jordan, arXiv 2404.00498, Sec. 3.3-3.4.

Every few steps the parameters are replaced by a slowly moving average of themselves (Lookahead, arXiv 1907.08610),
which moves less and less as training proceeds. Pure.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from dynsel_jax import options

__all__ = ["LookaheadState", "is_fixed", "lookahead_sgd"]


def is_fixed(path: Any) -> bool:
  """Whether a model holds the array at this path of its parameters constant, which its name says by "fixed_"."""
  return str(getattr(path[-1], "key", "")).startswith("fixed_")


class LookaheadState(NamedTuple):
  """The state of the optimizer."""

  inner: Any  # of SGD
  slow: Any  # the parameters' moving average
  step: Array  # [] int32, number of steps


def lookahead_sgd(
  *,
  momentum: float = 0.85,
  weight_decay: float = 1.33e-3,
  bias_multiplier: float = 64.0,
  every: int = 5,
  decay: float = 0.774,
) -> optax.GradientTransformationExtraArgs:
  """Nesterov SGD whose parameters become, every few steps, their average d slow + (1 - d) fast.

  d = decay * progress^3, where progress is the fraction of training that is done.

  Args:
    momentum: in [0, 1).
    weight_decay: added to the gradient, of biases too, but not of what a model holds constant.
    bias_multiplier: of the learning rate of one-dimensional parameters; what weight decay takes from them is not
      multiplied.
    every: number of steps between two averages.
    decay: d at the end of training, in [0, 1); 0 is no lookahead. The default is the paper's 0.95 ** 5.
  """
  options.check_fraction("optimizer.momentum", momentum, zero=True, one=False)
  options.check_positive("optimizer.weight_decay", weight_decay, zero=True)
  options.check_positive("optimizer.bias_multiplier", bias_multiplier)
  options.check_at_least("optimizer.every", every, 1)
  options.check_fraction("optimizer.decay", decay, zero=True, one=False)
  trace = optax.trace(momentum, nesterov=True)

  def init(params: Any) -> LookaheadState:
    return LookaheadState(trace.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32))

  def update(
    grads: Any, state: LookaheadState, params: Any = None, *, learning_rate: Array, progress: Array, **unused: Any
  ) -> tuple[Any, LookaheadState]:
    del unused
    scales = jax.tree.map(lambda p: bias_multiplier if p.ndim == 1 else 1.0, params)
    decays = jax.tree_util.tree_map_with_path(lambda path, _: 0.0 if is_fixed(path) else weight_decay, params)
    grads = jax.tree.map(lambda g, p, scale, d: g + (d / scale) * p, grads, params, scales, decays)
    updates, inner = trace.update(grads, state.inner)
    fast = jax.tree.map(lambda p, u, scale: p - (learning_rate * scale) * u, params, updates, scales)
    count = state.step + 1
    kept = jnp.where(count % every == 0, decay * progress**3, 1.0)  # 1 leaves the average as it is
    slow = jax.tree.map(lambda s, f: kept * s + (1.0 - kept) * f, state.slow, fast)
    new = jax.tree.map(lambda s, f: jnp.where(count % every == 0, s, f), slow, fast)
    # The caller multiplies by the learning rate, and subtracts.
    divisor = jnp.where(learning_rate > 0, learning_rate, 1.0)
    return jax.tree.map(lambda p, n: (p - n) / divisor, params, new), LookaheadState(inner, slow, count)

  return optax.GradientTransformationExtraArgs(init, update)
