"""The same network in PyTorch, for the benchmark `gpu`: channels last, bfloat16 autocast, fused SGD, data on the GPU.

As it stands, compiled, and each captured whole, from the gather of the batch to the update, in a CUDA graph.
"""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["timed"]

BATCH_SIZE = 128


def _network(torch: Any) -> Any:
  """Builds ResNet-18 for 32x32 images, as `models.resnet` does."""
  nn = torch.nn

  class Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int):
      super().__init__()
      self.conv_1, self.norm_1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
      self.conv_2, self.norm_2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
      shortcut = [nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)]
      self.shortcut = nn.Sequential(*(shortcut if width_in != width or stride > 1 else []))

    def forward(self, x: Any) -> Any:
      branch = torch.relu(self.norm_1(self.conv_1(x)))
      return torch.relu(self.norm_2(self.conv_2(branch)) + self.shortcut(x))

  layers: list[Any] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
  width_in = 64
  for stage, width in enumerate((64, 128, 256, 512)):
    for block in range(2):
      layers.append(Block(width_in, width, 2 if stage and not block else 1))
      width_in = width
  return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def _step(torch: Any, device: str, num_samples: int, *, compiled: bool) -> Callable[[Any], Any]:
  """Returns a training step on the samples at the given indices, `[BATCH_SIZE]`."""
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision("high")
  images = torch.randint(0, 256, (num_samples, 3, 32, 32), dtype=torch.uint8, device=device)
  labels = torch.randint(0, 10, (num_samples,), device=device)
  network = _network(torch).to(device).to(memory_format=torch.channels_last)
  update = torch.optim.SGD(
    network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=device == "cuda"
  )
  places, rows = torch.arange(32, device=device), torch.arange(BATCH_SIZE, device=device)[:, None, None]

  def augmented(index: Any) -> Any:
    x = images[index].to(torch.float32).div(255).sub(0.5).div(0.25)
    x = torch.nn.functional.pad(x, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, BATCH_SIZE), device=device)
    mirrored = torch.rand(BATCH_SIZE, device=device) < 0.5
    columns = left[:, None] + torch.where(mirrored[:, None], 31 - places, places)
    x = x[rows, :, (top[:, None] + places)[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)

  def loss_of(x: Any, y: Any) -> Any:
    with torch.autocast(device, torch.bfloat16):
      return torch.nn.functional.cross_entropy(network(x).float(), y)

  loss_of = torch.compile(loss_of) if compiled else loss_of

  def step(index: Any) -> Any:
    update.zero_grad(set_to_none=True)
    loss = loss_of(augmented(index), labels[index])
    loss.backward()
    update.step()
    return loss

  return step


def _captured(torch: Any, step: Callable[[Any], Any], index: Any) -> Callable[[], Any]:
  """Returns a replay of the step in a CUDA graph, on the samples in `index`."""
  stream = torch.cuda.Stream()
  stream.wait_stream(torch.cuda.current_stream())
  with torch.cuda.stream(stream):
    for _ in range(4):
      step(index)
  torch.cuda.current_stream().wait_stream(stream)
  graph = torch.cuda.CUDAGraph()
  with torch.cuda.graph(graph):
    step(index)
  return graph.replay


def timed(size: str, *, compiled: bool = False) -> Mapping[str, tuple[Callable[[], Any], int]]:
  """Returns calls of 32 awaited steps by label, as `gpu_workers` times them."""
  import torch

  device = "cuda" if torch.cuda.is_available() else "cpu"
  num_samples, count = (512, 1) if size == "tiny" else (50_000, 32)
  order = torch.randperm(num_samples, device=device)
  step = _step(torch, device, num_samples, compiled=compiled)

  def awaited() -> None:
    if device == "cuda":
      torch.cuda.synchronize()

  def plain() -> None:
    for number in range(count):
      step(order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE])
    awaited()

  plain()
  label = "compiled" if compiled else "eager"
  calls: dict[str, tuple[Callable[[], Any], int]] = {label: (plain, count)}
  if device == "cuda":
    index = order[:BATCH_SIZE].clone()
    replay = _captured(torch, step, index)

    def graph() -> None:
      for number in range(count):
        index.copy_(order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE])
        replay()
      awaited()

    calls[f"{label}, CUDA graph"] = (graph, count)
  return calls
