"""Optimizers without their learning rate, against the update rules written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import options
from dynsel_jax.training import optimizers
from dynsel_jax.training.state import TrainState

PARAMS = {"kernel": np.array([[1.0, -2.0]], np.float32), "bias": np.array([3.0], np.float32)}
GRADS = [{"kernel": np.full((1, 2), g, np.float32), "bias": np.array([g], np.float32)} for g in (0.5, -1.0, 2.0)]


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def _train(tx, learning_rate):
  state = TrainState.create(apply_fn=None, params={k: jnp.asarray(v) for k, v in PARAMS.items()}, tx=tx, batch_stats={})
  for grads in GRADS:
    state = state.apply_gradients(grads=grads, learning_rate=jnp.float32(learning_rate), progress=jnp.float32(0))
  return state.params


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs_and_spares_biases(nesterov):
  new = _train(optimizers.create("sgd", momentum=0.9, nesterov=nesterov, weight_decay=0.1), 0.01)
  for name, decay in (("kernel", 0.1), ("bias", 0.0)):
    param, trace = PARAMS[name].astype(np.float64), 0.0
    for grads in GRADS:
      grad = grads[name] + decay * param
      trace = 0.9 * trace + grad
      param = param - 0.01 * (grad + 0.9 * trace if nesterov else trace)
    np.testing.assert_allclose(new[name], param, rtol=1e-5)


@pytest.mark.parametrize("decay_all", [False, True])
def test_adamw_decays_beside_the_update(decay_all):
  new = _train(optimizers.create("adamw", weight_decay=0.1, decay_all=decay_all), 0.01)
  for name, decay in (("kernel", 0.1), ("bias", 0.1 if decay_all else 0.0)):
    param, first, second = PARAMS[name].astype(np.float64), 0.0, 0.0
    for t, grads in enumerate(GRADS, 1):
      first, second = 0.9 * first + 0.1 * grads[name], 0.999 * second + 0.001 * grads[name] ** 2
      update = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
      param = param - 0.01 * (update + decay * param)
    np.testing.assert_allclose(new[name], param, rtol=1e-4)


def test_adam_adds_decay_to_the_gradient():
  tx = optimizers.create("adam", weight_decay=1e6)
  # The gradient is then all decay, whose sign Adam's first update follows whatever its size.
  state = TrainState.create(apply_fn=None, params={"kernel": jnp.array([[2.0]])}, tx=tx, batch_stats={})
  new = state.apply_gradients(
    grads={"kernel": jnp.array([[-1.0]])}, learning_rate=jnp.float32(0.5), progress=jnp.float32(0)
  )
  np.testing.assert_allclose(new.params["kernel"], [[1.5]], rtol=1e-5)


def test_wrong_settings_are_named():
  with pytest.raises(
    options.UserError, match="optimizer.name='sdg' is not known; known: adam, adamw, lookahead_sgd, sgd"
  ):
    optimizers.create("sdg")
  with pytest.raises(options.UserError, match="optimizer.weight_decay=-1"):
    optimizers.create("sgd", weight_decay=-1.0)
