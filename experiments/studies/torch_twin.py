"""A residual network of `dynsel_jax.models` in PyTorch, and its training by a config's recipe. For `parity`.

PyTorch is imported on use. `B` is the batch size.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax import options
from dynsel_jax.data import gather
from dynsel_jax.models.resnet import ResNet
from dynsel_jax.training import setup

__all__ = ["accuracy", "network"]


def _torch() -> Any:
  return options.optional_library("torch", "benchmark")


def network(module: ResNet, channels: int) -> Any:
  """Returns the `torch.nn.Module` of the same layers, with the same distribution of the convolutions' first weights.

  The head starts as PyTorch starts it. Maps images `[B, C, H, W]` to outputs `[B, num_outputs]`.

  Args:
    module: of `models.resnet`.
    channels: C, of the images.

  Raises:
    UserError: the stem pads unevenly, which PyTorch's convolution does not.
  """
  nn = _torch().nn

  def conv_norm(inputs: int, outputs: int, kernel: int, stride: int) -> Any:
    pad, odd = divmod(kernel - (1 if kernel % 2 else stride), 2)
    if odd:
      raise options.UserError(f"model.stem_stride={stride} pads unevenly; take an even one")
    layer = nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=False)
    if module.initial == "he_fan_out":
      nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))

  class Block(nn.Module):  # type: ignore[name-defined, misc]
    def __init__(self, inputs: int, width: int, stride: int):
      super().__init__()
      plan = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)] if module.bottleneck else None
      layers: list[Any] = []
      self.outputs = inputs
      for outputs, kernel, step in plan or [(width, 3, stride), (width, 3, 1)]:
        layers += [conv_norm(self.outputs, outputs, kernel, step), nn.ReLU()]
        self.outputs = outputs
      self.branch = nn.Sequential(*layers[:-1])
      alike = inputs == self.outputs and stride == 1
      self.shortcut = nn.Identity() if alike else conv_norm(inputs, self.outputs, 1, stride)

    def forward(self, x: Any) -> Any:
      return nn.functional.relu(self.branch(x) + self.shortcut(x))

  layers = [conv_norm(channels, module.width, module.stem_kernel, module.stem_stride), nn.ReLU()]
  if module.stem_pooling:
    layers.append(nn.MaxPool2d(3, 2, 1))
  inputs = module.width
  for stage, size in enumerate(module.stage_sizes):
    for block in range(size):
      layers.append(Block(inputs, module.width * 2**stage, 2 if stage > 0 and block == 0 else 1))
      inputs = layers[-1].outputs
  return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, module.num_outputs))


def accuracy(made: setup.Parts) -> float:
  """Trains the twin of a run on the full data, and returns its test accuracy in [0, 1].

  Augmentation, normalisation and learning-rate schedule are the run's own; network, loss and optimizer are PyTorch's.

  Args:
    made: the parts of the run; its optimizer is `sgd`, its task `classification`.
  """
  torch, config, source = _torch(), made.config, made.source
  torch.manual_seed(config.seed)
  device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  net = network(made.module, source.train["inputs"].shape[-1]).to(device)  # type: ignore[arg-type]
  optimizer = _optimizer(torch, net, config.optimizer)
  train = {name: jnp.asarray(array) for name, array in source.train.items()}
  augmented = jax.jit(lambda key, index: made.task.inputs(key, index, gather.gather(train, index)))
  rng, key, num_samples = np.random.default_rng(config.seed), jax.random.key(config.seed), source.num_samples
  for epoch in range(config.epochs):
    order, net = rng.permutation(num_samples), net.train()
    for start in range(0, num_samples, config.batch_size):
      batch = augmented(
        jax.random.fold_in(key, epoch), jnp.asarray(order[start : start + config.batch_size], jnp.int32)
      )
      images, labels = _placed(torch, batch, device)
      rate = float(made.schedule(jnp.float32((epoch + start / num_samples) / config.epochs)))
      for group in optimizer.param_groups:
        group["lr"] = rate
      optimizer.zero_grad()
      torch.nn.functional.cross_entropy(net(images), labels, label_smoothing=config.task.label_smoothing).backward()
      optimizer.step()
  return _evaluate(torch, net.eval(), made, device)


def _optimizer(torch: Any, net: Any, settings: Any) -> Any:
  """Returns SGD; weight decay is left off biases and normalisation scales unless `decay_all` is set."""
  matrices = [p for p in net.parameters() if p.ndim > 1 or settings.decay_all]
  rest = [p for p in net.parameters() if not (p.ndim > 1 or settings.decay_all)]
  groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
  kept = [group for group in groups if group["params"]]
  return torch.optim.SGD(kept, lr=1.0, momentum=settings.momentum, nesterov=settings.nesterov)


def _placed(torch: Any, batch: Any, device: Any) -> tuple[Any, Any]:
  images, labels = (torch.from_numpy(np.array(batch[name])).to(device) for name in ("inputs", "labels"))
  return images.permute(0, 3, 1, 2).contiguous(), labels.long()


def _evaluate(torch: Any, net: Any, made: setup.Parts, device: Any) -> float:
  test = {name: jnp.asarray(array) for name, array in made.source.test.items()}
  plain = jax.jit(lambda index: made.task.inputs(None, index, gather.gather(test, index)))
  num_samples, correct = len(test["labels"]), 0
  with torch.no_grad():
    for start in range(0, num_samples, made.config.eval_batch_size):
      index = jnp.arange(start, min(start + made.config.eval_batch_size, num_samples), dtype=jnp.int32)
      images, labels = _placed(torch, plain(index), device)
      correct += int((net(images).argmax(1) == labels).sum())
  return correct / num_samples
