"""Hugging Face's Trainer and TRL's SFTTrainer with a Sampler inside, stopped at a checkpoint and continued."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dynsel_jax import sampler
from dynsel_jax.options import UserError
from tests.support import ROOT

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")
adapter = pytest.importorskip("dynsel_jax.adapters.transformers")
pytestmark = pytest.mark.filterwarnings("default")  # other people's
N, B, EPOCHS, LENGTH, VOCABULARY = 30, 4, 3, 6, 17
SAVED = 10  # micro-batches: within the second epoch


class Trainer(adapter.SelectionMixin, transformers.Trainer):
  """As a user derives it; notes the samples of each batch and its loss."""

  def compute_loss(self, model, inputs, *args, **kwargs):
    index = inputs["index"].tolist() if "index" in inputs else None
    loss = super().compute_loss(model, inputs, *args, **kwargs)
    if model.training:
      self.__dict__.setdefault("seen", []).append((index, loss.item()))
    return loss


class Rows(torch.utils.data.Dataset):
  """Token sequences that begin with a prompt of one to three tokens; notes which are read."""

  def __init__(self):
    rng = np.random.default_rng(0)
    self.tokens = rng.integers(3, VOCABULARY, (N, LENGTH))
    self.prompts, self.read = rng.integers(1, 4, N), []

  def __len__(self):
    return N

  def __getitem__(self, index):
    self.read.append(index)
    labels = np.where(np.arange(LENGTH) < self.prompts[index], -100, self.tokens[index])
    return {"input_ids": self.tokens[index].tolist(), "labels": labels.tolist()}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
  torch.set_num_threads(1)


def model_of():
  torch.manual_seed(0)
  sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": LENGTH, "vocab_size": VOCABULARY}
  return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=1, pad_token_id=2))


def arguments(folder, **changes):
  settings = {
    "num_train_epochs": EPOCHS,
    "per_device_train_batch_size": B,
    "learning_rate": 0.05,
    "save_strategy": "steps",
    "save_steps": SAVED,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
  }
  return {"output_dir": str(folder), **settings, **changes}


def selection_of(method="infobatch", **changes):
  return sampler.Sampler(method, **{"num_samples": N, "epochs": EPOCHS, "batch_size": B, "seed": 3, **changes})


def trainer_of(folder, selection, eval_dataset=None, **changes):
  args = transformers.TrainingArguments(**arguments(folder, **changes))
  return Trainer(model_of(), args, train_dataset=Rows(), eval_dataset=eval_dataset, selection=selection)


def rates(trainer):
  return [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]


def assert_the_same_run(again, whole, done):
  """Compares a continued run with the whole one, of which it did not see `done` batches."""
  assert again.seen == whole.seen[done:] and again.state.global_step == whole.state.global_step
  assert again.selection.backward_visits == whole.selection.backward_visits
  assert rates(again) == rates(whole)  # its log begins with that of the checkpoint
  for name, value in whole.model.state_dict().items():
    assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 2}, {"dataloader_drop_last": True}])
def test_a_trainer_continued_from_a_checkpoint_trains_on_the_same_samples(tmp_path, changes):
  accumulated = changes.get("gradient_accumulation_steps", 1)
  changes = {**changes, "save_steps": SAVED // accumulated}
  whole = trainer_of(tmp_path, selection_of(), **changes)
  whole.train()
  assert whole.state.global_step * accumulated < EPOCHS * -(-N // B)  # it did not train on everything
  assert whole.selection.epoch >= EPOCHS - 1 and whole.state.epoch == pytest.approx(EPOCHS, abs=0.2)
  again = trainer_of(tmp_path, selection_of(), **changes)
  again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{SAVED // accumulated}"))
  assert_the_same_run(again, whole, SAVED)


def test_a_checkpoint_of_the_end_of_an_epoch_is_continued_too(tmp_path):
  whole = trainer_of(tmp_path, selection_of(), save_steps=8)
  whole.train()
  again = trainer_of(tmp_path, selection_of(), save_steps=8)
  again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
  assert_the_same_run(again, whole, 8)


def test_the_trainer_alone_starts_anew_or_skips(tmp_path):
  def plain():
    args = transformers.TrainingArguments(**arguments(tmp_path / "plain", ignore_data_skip=True))
    return transformers.Trainer(model_of(), args, train_dataset=Rows())

  whole, again = plain(), plain()
  whole.train()
  again.train(resume_from_checkpoint=str(tmp_path / "plain" / f"checkpoint-{SAVED}"))
  assert again.train_dataset.read[: N - 2 * B] != whole.train_dataset.read[N + 2 * B : 2 * N]  # anew, in another order
  whole = trainer_of(tmp_path / "ours", selection_of())
  whole.train()
  again = trainer_of(tmp_path / "ours", selection_of())
  again.args.ignore_data_skip = False  # as if only `_get_train_sampler` were overridden
  again.train(resume_from_checkpoint=str(tmp_path / "ours" / f"checkpoint-{SAVED}"))
  assert [index for index, _ in again.seen][0] == [index for index, _ in whole.seen][SAVED + 2]  # two are lost


def test_full_is_the_plain_trainer(tmp_path):
  ours = trainer_of(tmp_path / "ours", selection_of("full"), optim="sgd")  # Adam makes steps of rounding errors
  ours.train()
  order = [sample for batch, _ in ours.seen for sample in batch]

  class AsOurs(transformers.Trainer):
    def _get_train_sampler(self, train_dataset=None):
      parts = iter([order[:N], order[N : 2 * N], order[2 * N :]])
      return type("Parts", (), {"__iter__": lambda _: iter(next(parts)), "__len__": lambda _: N})()

  args = transformers.TrainingArguments(**arguments(tmp_path / "plain", optim="sgd"))
  plain = AsOurs(model_of(), args, train_dataset=Rows())
  plain.train()
  assert rates(plain) == rates(ours)
  for name, value in ours.model.state_dict().items():
    torch.testing.assert_close(value, plain.model.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(("method", "divided"), [("infobatch", "batch_size"), ("full", "weight_sum")])
def test_a_weight_multiplies_the_losses_of_a_sequence(tmp_path, monkeypatch, method, divided):
  trainer = trainer_of(tmp_path, selection_of(method))
  assert trainer.selection.loss_normalization == divided
  (index, _), *_ = trainer.selection.current().read_ahead()
  monkeypatch.setattr(trainer.selection, "weight_of", lambda index: np.arange(1, len(index) + 1, dtype=np.float32))
  batch = trainer.data_collator([trainer.train_dataset[i] for i in index.tolist()])
  assert batch["index"].tolist() == index.tolist()
  for module in trainer.model.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
  logits = trainer.model(input_ids=batch["input_ids"]).logits[:, :-1]
  losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none")
  counts, weights = (batch["labels"][:, 1:] != -100).sum(1), torch.arange(1, B + 1)
  expected = (weights * losses.sum(1)).sum() / (counts if divided == "batch_size" else weights * counts).sum()
  torch.testing.assert_close(super(Trainer, trainer).compute_loss(trainer.model.train(), batch), expected)
  np.testing.assert_allclose(trainer.selection._queue[0].loss, (losses.sum(1) / counts).detach(), rtol=1e-5)
  assert trainer.selection.step == 1


def test_evaluation_needs_no_index_and_observes_nothing(tmp_path):
  trainer = trainer_of(tmp_path, selection_of(), eval_dataset=Rows())
  assert trainer.evaluate()["eval_loss"] > 0 and not trainer.selection._queue and trainer.selection.step == 0


def test_a_method_that_thins_trains_on_the_rows_that_it_picks(tmp_path):
  trainer = trainer_of(tmp_path, selection_of("selective_backprop"))
  trainer.train()
  assert trainer.selection.forward_visits == EPOCHS * N
  assert trainer.selection.backward_visits == EPOCHS * 8 * B // 2


def test_a_classifier_s_losses_are_those_of_its_samples(tmp_path, monkeypatch):
  sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
  config = transformers.BertConfig(**sizes, vocab_size=VOCABULARY, num_labels=3, hidden_dropout_prob=0.0)
  rows = [{"input_ids": Rows()[number]["input_ids"], "label": number % 3} for number in range(N)]

  class Confident(Trainer):
    def extras_of(self, outputs, labels):
      return {"margin": outputs.logits[:, 0]}

  model = transformers.BertForSequenceClassification(config)
  args = transformers.TrainingArguments(**arguments(tmp_path, num_train_epochs=1))
  trainer = Confident(model, args, train_dataset=rows, selection=selection_of(epochs=1))
  trainer.selection.extras = ("margin",)  # as if the method read it
  observed, thin = [], trainer.selection.thin

  def noted(index, losses, **extras):
    observed.append((index.tolist(), losses.mean(), extras["margin"].shape))
    return thin(index, losses, **extras)

  monkeypatch.setattr(trainer.selection, "thin", noted)
  trainer.train()
  for (index, mean, shape), (seen, loss) in zip(observed, trainer.seen, strict=True):
    assert index == seen and shape == (len(seen),) and mean == pytest.approx(loss, rel=1e-5)


WRONG = {
  "another number of samples": ({"num_samples": 31}, {}, "has num_samples=31, but the trainer 30"),
  "another batch": ({"batch_size": 8}, {}, "has batch_size=8, but the trainer 4"),
  "other epochs": ({"epochs": 5}, {}, "has num_epochs=5, but the trainer 3"),
  "steps": ({}, {"max_steps": 5}, "does not work with max_steps"),
  "smoothing": ({}, {"label_smoothing_factor": 0.1}, "override token_losses"),
  "refresh": ({"method": "kakurenbo"}, {}, "scores samples again"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_trainer_that_cannot_follow_the_selection_is_refused(tmp_path, name):
  ours, theirs, words = WRONG[name]
  with pytest.raises(UserError, match=words) as error:
    trainer_of(tmp_path, selection_of(**ours), **theirs)
  assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_trainer_is_refused(tmp_path):
  (tmp_path / "checkpoint-3").mkdir()
  with pytest.raises(UserError, match="there is no .*checkpoint-3/sampler.json"):
    trainer_of(tmp_path, selection_of()).train(resume_from_checkpoint=True)


def tokenizer_of():
  tokenizers = pytest.importorskip("tokenizers")
  words = {"<bos>": 0, "<eos>": 1, "<pad>": 2, **{f"w{n}": n for n in range(3, VOCABULARY)}}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
  made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
  return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)


def test_trl_s_trainer_for_fine_tuning_is_continued_too(tmp_path):
  trl = pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
  datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")

  class Tuner(Trainer, trl.SFTTrainer):
    pass

  texts = [" ".join(f"w{token}" for token in row[: 3 + number % 3]) for number, row in enumerate(Rows().tokens)]

  def tuner():
    settings = {"max_length": LENGTH, "dataset_text_field": "text", "bf16": False, "gradient_checkpointing": False}
    args = trl.SFTConfig(**arguments(tmp_path, **settings))
    dataset = datasets.Dataset.from_dict({"text": texts})
    tokenizer = tokenizer_of()
    return Tuner(model_of(), args, train_dataset=dataset, processing_class=tokenizer, selection=selection_of())

  whole = tuner()
  whole.train()
  assert any(
    "mean_token_accuracy" in log for log in whole.state.log_history
  )  # what it measures beside is measured still
  again = tuner()
  again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{SAVED}"))
  assert_the_same_run(again, whole, SAVED)
  state = json.loads((tmp_path / f"checkpoint-{SAVED}" / "sampler.json").read_text())
  assert (state["epoch"], state["step"]) == (1, SAVED - 8)


RANK = """
import os, sys
import numpy as np
from tests import test_adapters_transformers as t

folder, checkpoint = sys.argv[1], f"{sys.argv[1]}/checkpoint-10" if sys.argv[2:] else None
# Adam's state, of the device cpu:0 here, is not loaded again by transformers 5.12.
settings = {"per_device_train_batch_size": t.B // 2, "ddp_backend": "gloo", "optim": "sgd"}
trainer = t.trainer_of(folder, t.selection_of(), **settings)
trainer.train(resume_from_checkpoint=checkpoint)
state = {k: v for k, v in trainer.selection.state_dict().items() if isinstance(v, np.ndarray)}
model = np.concatenate([p.detach().numpy().ravel() for p in trainer.model.parameters()])
visits = trainer.selection.backward_visits
np.savez(f"{folder}/{os.environ['RANK']}{'-again' if checkpoint else ''}.npz", model=model, visits=visits, **state)
"""


def test_two_processes_observe_the_losses_of_both_and_are_continued(tmp_path):
  script = tmp_path / "rank.py"
  script.write_text(RANK)
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
  command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, tmp_path]
  for more in ([], ["again"]):
    done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
  one, other, again = (np.load(tmp_path / f"{name}.npz") for name in ("0", "1", "0-again"))
  assert N < one["visits"] < EPOCHS * N
  for name in one.files:
    np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(one[name], again[name])
