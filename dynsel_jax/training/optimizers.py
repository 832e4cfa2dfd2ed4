"""Optimizers as optax transformations without a learning rate, by which each step multiplies their updates.

Pure. Weight decay applies to the weights of dense layers and convolutions, not to biases and normalisation scales,
unless `decay_all` is set; and never to an array whose name begins with "fixed_", which a model holds constant.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from dynsel_jax import options
from dynsel_jax.training import lookahead

__all__ = ["OPTIMIZERS", "adam", "adamw", "create", "defaults", "sgd"]


def _decayed(weight_decay: float, decay_all: bool) -> optax.GradientTransformation:
  options.check_positive("optimizer.weight_decay", weight_decay, zero=True)

  def decays(path: Any, leaf: Any) -> bool:
    return (decay_all or leaf.ndim > 1) and not lookahead.is_fixed(path)

  return optax.add_decayed_weights(weight_decay, lambda params: jax.tree_util.tree_map_with_path(decays, params))


def _check_decay_rate(field: str, value: float) -> None:
  options.check_fraction(f"optimizer.{field}", value, zero=True, one=False)


def sgd(
  *, momentum: float = 0.9, nesterov: bool = True, weight_decay: float = 5e-4, decay_all: bool = False
) -> optax.GradientTransformation:
  """Stochastic gradient descent with momentum; weight decay is added to the gradient, as in PyTorch."""
  _check_decay_rate("momentum", momentum)
  return optax.chain(_decayed(weight_decay, decay_all), optax.trace(momentum, nesterov))


def adam(
  *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0, decay_all: bool = False
) -> optax.GradientTransformation:
  """Adam (arXiv 1412.6980); weight decay is added to the gradient."""
  _check_decay_rate("b1", b1)
  _check_decay_rate("b2", b2)
  return optax.chain(_decayed(weight_decay, decay_all), optax.scale_by_adam(b1, b2, eps))


def adamw(
  *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-2, decay_all: bool = False
) -> optax.GradientTransformation:
  """AdamW (arXiv 1711.05101); weight decay is added to the update."""
  _check_decay_rate("b1", b1)
  _check_decay_rate("b2", b2)
  return optax.chain(optax.scale_by_adam(b1, b2, eps), _decayed(weight_decay, decay_all))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  "adam": adam,
  "adamw": adamw,
  "lookahead_sgd": lookahead.lookahead_sgd,
  "sgd": sgd,
}


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the optimizer `name` with their defaults."""
  options.check_choice("optimizer.name", name, OPTIMIZERS)
  return options.keyword_defaults(OPTIMIZERS[name])


def create(name: str, **settings: Any) -> optax.GradientTransformation:
  """Builds the optimizer `name`; a step multiplies its updates by minus the learning rate.

  Raises:
    UserError: the name or an option is unknown, or a value is out of range.
  """
  options.check_choice("optimizer.name", name, OPTIMIZERS)
  options.check_settings("optimizer", name, settings, defaults(name))
  return OPTIMIZERS[name](**settings)
