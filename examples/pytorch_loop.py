"""PyTorch's DataLoader reads what a method selects; a loop that is stopped goes on with the same samples.

pip install torch scikit-learn
python examples/pytorch_loop.py
"""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import dynsel_jax
from dynsel_jax.adapters.torch import SelectionBatchSampler, WithIndex, gather_observe, weighted_mean


def digits():
  """Returns the training and the test set."""
  images, labels = load_digits(return_X_y=True)
  x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
  return TensorDataset(x[:1440], y[:1440]), TensorDataset(x[1440:], y[1440:])


def train(method="infobatch", epochs=30, stop_after=None, checkpoint=None):
  """Returns the test accuracy, the samples in the order of training, and a checkpoint."""
  torch.manual_seed(0)
  training, test = digits()
  model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
  sampler = dynsel_jax.Sampler(method, num_samples=len(training), epochs=epochs, batch_size=64, seed=0)
  if checkpoint:
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    sampler.load_state_dict(checkpoint["sampler"])
  # For workers: num_workers=4, multiprocessing_context="spawn"; JAX has threads, and must not be forked.
  loader = DataLoader(WithIndex(training), batch_sampler=SelectionBatchSampler(sampler))
  seen = []
  for _ in sampler.epochs():
    for x, y, index in loader:
      losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
      optimizer.zero_grad()
      weighted_mean(sampler, index, losses).backward()
      optimizer.step()
      gather_observe(sampler, index, losses)  # of all ranks, where torch.distributed is initialised
      seen.append(index.tolist())
      if len(seen) == stop_after:
        break
    if len(seen) == stop_after:
      break
  with torch.no_grad():
    accuracy = (model(test.tensors[0]).argmax(1) == test.tensors[1]).float().mean().item()
  parts = {"model": model, "optimizer": optimizer, "sampler": sampler}
  return accuracy, seen, {name: part.state_dict() for name, part in parts.items()}


if __name__ == "__main__":
  for name in ("full", "infobatch"):
    accuracy, seen, _ = train(name)
    visits = sum(map(len, seen)) / (30 * 1440)
    print(f"{name}: test accuracy {accuracy:.1%} with {visits:.0%} of the samples")
  whole, checkpoint = train()[1], train(stop_after=200)[2]
  print("stopped and continued, the same samples:", train(checkpoint=checkpoint)[1] == whole[200:])
