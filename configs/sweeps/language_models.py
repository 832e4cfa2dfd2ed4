"""The frontier of plain training and methods beside it for language models, from random weights or fine-tuned.

Plain runs of several lengths; methods with a keep fraction at `keep` and the longest length; infobatch, es and eswp at
the longest length; random under pods. A method lies above the frontier if its nats per token are below those of plain
training at the same cost. Learning rates are chosen on the validation file, see `dynsel_jax/report/frontier.py`.

    python -m experiments.frontier --sweep=configs/sweeps/language_models.py:train=TRAIN,test=TEST,validation=HELD \
        --workdir=runs/documents --tuning_seeds=1

The files are JSON Lines, see `configs/pretrain_text.py` and `configs/sft.py`; `experiments.studies.split_rows` makes
smaller ones and a validation file. Documents are learnt by a decoder with 2.1 million parameters, three layers of width
192 on 4,096 byte pairs, in batches of 16 pieces of 128 tokens. `config=configs/sft.py` fine-tunes SmolLM2-135M with
low-rank updates in batches of 4 conversations of at most 96 tokens. With `size=full` both have the recipes of their
configs.

Arguments: `train`, `test`, `validation`; `config`; `size` (cpu); `model`, folder of the pretrained model; `lengths`,
epochs of the plain runs; `rates`, learning rates; `keep`; `methods`, in place of all; `wrapped`, methods under the
wrapper before a colon, `pods:random`; `seeds`. Values are joined by +.
"""

from configs.sweeps import base
from dynsel_jax import options

METHODS = ("random", "rs2", "infobatch", "es", "eswp", "rrd")
CONFIGS = ("configs/pretrain_text.py", "configs/sft.py")

_DECODER = {"model.width": 192, "model.layers": 3, "model.heads": 3, "model.groups": 3, "model.hidden": 512}
_DOCUMENTS = {**_DECODER, "dataset.vocabulary": 4096, "batch_size": 16, "schedule.end": 0.0}  # 0: see `one_program`
_CONVERSATIONS = {"batch_size": 4, "dataset.max_length": 96, "dataset.length_buckets": 4}
_FACTORS = {"factors.batch_size": 256, "factors.learning_rate": 4e-3}  # a few thousand samples


def _with_factors(point: base.Point) -> base.Point:
  return point._replace(fields={**point.fields, **_FACTORS}) if point.variants["selector"] == "rrd" else point


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  files = {"train": "", "test": "", "validation": ""}
  named = {
    "config": CONFIGS[0],
    "size": "cpu",
    "model": "",
    "lengths": "1+2+3+5",
    "rates": "1e-3+2e-3",
    "keep": "0.5",
    "wrapped": "pods:random",
  }
  chosen = base.parse(arguments, **files, **named, methods="+".join(METHODS), seeds=3)
  options.check_choice("sweep argument config", chosen["config"], CONFIGS)
  lengths = sorted(base.numbers("lengths", chosen["lengths"], int), reverse=True)
  keep = base.numbers("keep", chosen["keep"], float)
  points = base.budgets(["full"], [], lengths)
  points += base.budgets(filter(None, chosen["methods"].split("+")), keep, lengths[:1])
  for pair in filter(None, chosen["wrapped"].split("+")):
    wrapper, _, name = pair.partition(":")
    points += [base.wrapped(point, wrapper) for point in base.budgets([name], keep, lengths[:1])]
  rates = base.field("learning_rate", base.numbers("rates", chosen["rates"], float))
  fields = {"checkpoint_every_steps": 0} | {f"dataset.{split}": chosen[split] for split in files if chosen[split]}
  if chosen["model"]:
    fields |= {"model.weights": chosen["model"], "dataset.tokenizer": chosen["model"]}
  if chosen["size"] == "cpu":
    fields |= _DOCUMENTS if chosen["config"] == CONFIGS[0] else _CONVERSATIONS
  axes = [[_with_factors(point) for point in points], rates, base.seeds(chosen["seeds"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", axes, fields)
