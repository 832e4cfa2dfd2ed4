"""Continues prompts with the model of a run of a language model, by greedy decoding.

    python -m experiments.generate --workdir=runs/sft --prompt='Define the noun "ratchet".' [--prompt=...] \
        [--max_tokens=64]
"""

from collections.abc import Sequence

from absl import flags

from dynsel_jax import options
from dynsel_jax.runs import generation
from experiments import cli


def main(workdir: str, prompts: Sequence[str], max_tokens: int) -> None:
  """Prints each prompt and what follows."""
  for prompt, text in zip(prompts, generation.generate(workdir, prompts, max_tokens), strict=True):
    lines = map(options.printable, text.splitlines())
    print(f"> {options.printable(prompt)}", *lines, "", sep="\n")


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "The folder of the run.", required=True)
  flags.DEFINE_multi_string("prompt", None, "A prompt; may be repeated.", required=True)
  flags.DEFINE_integer("max_tokens", 64, "The largest number of tokens of a text.")
  cli.run(lambda: main(flags.FLAGS.workdir, flags.FLAGS.prompt, flags.FLAGS.max_tokens))
