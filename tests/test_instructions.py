"""Conversations as tokens: the loss is on the responses alone, chat templates, what is cut, and bad rows."""

import json
import pathlib

import numpy as np
import pytest

from dynsel_jax import data
from dynsel_jax.data import chat, codecs, instructions
from dynsel_jax.data.chat import Segment
from dynsel_jax.data.json_rows import Row
from dynsel_jax.models.decoder import PAD
from dynsel_jax.options import UserError
from tests.support import language

CHATML = (
  "{% for m in messages %}"
  "{% if loop.first and m.role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
  "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  """A folder with a tokenizer of bytes whose special tokens are those of ChatML."""
  folder = tmp_path_factory.mktemp("tokenizer")
  held = json.loads(codecs.learnt(["x"], 257).tokenizer)
  for number, token in enumerate(("<|im_start|>", "<|im_end|>"), 257):
    held["added_tokens"].append(held["added_tokens"][0] | {"id": number, "content": token})
    held["model"]["vocab"][token] = number
  (folder / "tokenizer.json").write_text(json.dumps(held))
  settings = {"eos_token": {"content": "<|im_end|>"}, "chat_template": CHATML}
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  return str(folder)


def load(folder, train, **changes):
  path = language.write_rows(folder / "rows.jsonl", train)
  return instructions.load("talks", train=path, test=path, **changes)


def shown(made, codec, row=0):
  """What the model reads and what it has to write, of a training row."""
  ids, targets = made.train["inputs"][row], made.train["targets"][row]
  real = ids != PAD
  assert not targets[~real].any()
  return codec.decode([ids[real].tolist(), ids[targets].tolist()])


def test_bytes_have_lines_of_roles_and_a_loss_on_the_response_with_its_end(tmp_path):
  made = load(tmp_path, [{"prompt": "1+1?", "response": "two"}])
  text = b"user: 1+1?\nassistant: two"
  np.testing.assert_array_equal(made.train["inputs"][0], [*text, codecs.BYTES])
  np.testing.assert_array_equal(made.train["targets"][0], [False] * (len(text) - 3) + [True] * 4)
  assert made.labels is None and made.text.vocabulary == 257


def test_a_prompt_and_messages_of_the_same_conversation_are_the_same(tmp_path):
  made = load(tmp_path, [{"prompt": "hi", "response": "yo"}, {"messages": TALK}])
  for array in made.train.values():
    np.testing.assert_array_equal(array[0], array[1])


def test_a_template_frames_the_turns_and_each_response_counts_with_its_end(tmp_path, tokenizer):
  pytest.importorskip("jinja2")
  more = [*TALK, {"role": "user", "content": "more"}, {"role": "assistant", "content": "no\n"}]
  rows = [{"prompt": "hi", "response": "yo", "source": "a"}, {"messages": more, "source": "b"}]
  made = load(tmp_path, rows, tokenizer=tokenizer)
  codec = codecs.load("dataset.tokenizer", tokenizer)
  frame = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>"
  assert shown(made, codec) == [frame, "yo<|im_end|>"]
  longer = f"{frame}\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\nno\n<|im_end|>"
  assert shown(made, codec, 1) == [longer, "yo<|im_end|>no\n<|im_end|>"]
  assert made.class_names == ("a", "b") and codec.end == 258
  assert (made.train["inputs"] == 258).sum() == 3 + 5  # the token itself and not its letters


def test_a_template_without_an_end_gets_one():
  def render(messages, prompted):
    return "".join(f"[{m['content']}]" for m in messages) + ("[" if prompted else "")

  parts = list(chat.segments(render, "<end>", TALK))
  assert parts == [Segment("[hi][", False), Segment("yo]", True, True)]


def test_a_template_that_rewrites_what_came_before_is_refused():
  def render(messages, prompted):
    return f"{len(messages)}" + "".join(m["content"] for m in messages)

  with pytest.raises(UserError, match="changes what stands before message 2"):
    list(chat.segments(render, "", TALK))


def test_what_is_too_long_is_cut_and_counted(tmp_path, caplog):
  rows = [
    {"prompt": "p", "response": "r" * 50},
    {"prompt": "p" * 50, "response": "r"},
    {"prompt": "p", "response": "r"},
  ]
  made = load(tmp_path, rows, max_length=30)
  assert made.train["inputs"].shape == (2, 30)
  assert made.train["targets"].sum(axis=1).tolist() == [30 - len("user: p\nassistant: "), 2]
  assert "longer than max_length=30 and cut" in caplog.text
  assert "2 left out, since no token of a response remains" in caplog.text  # of train and test
  assert "4 longer than" in caplog.text
  with pytest.raises(UserError, match=r"dataset\.max_length=5 leaves no response in dataset\.train"):
    load(tmp_path, rows, max_length=5)


def test_the_section_of_a_config_is_read(tmp_path):
  path = language.write_rows(tmp_path / "rows.jsonl", [{"prompt": "hi", "response": "yo"}])
  made = data.prepare(instructions.defaults() | {"name": "talks", "train": path, "test": path})
  assert made.train["targets"].sum() == 3


GOOD = {"prompt": "hi", "response": "yo"}


@pytest.mark.parametrize(
  ("row", "line"),
  [
    ({"prompt": "hi"}, "line 2 has no 'response'; its columns: prompt"),
    ({"prompt": "hi", "response": ""}, "line 2 has the response ''; it must be a string that is not empty"),
    ({"prompt": "hi", "response": None}, "line 2 has the response None; it must be"),
    ({"prompt": "hi", "response": "\udc00"}, "line 2 has the response '\\udc00', with half of a surrogate pair in it"),
    ({"messages": []}, "line 2 has the messages []; they must be a list of roles and contents"),
    ({"messages": [{"role": "user"}]}, "line 2 has message 1, {'role': 'user'}, without a role and a content"),
    ({"messages": [{"role": "user", "content": 1}]}, "line 2 has message 1 whose role or content is no string"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "has the content of message 1 '\\ud800', with half of a"),
    ({"messages": [{"role": "\ud800", "content": "a"}]}, "has the role of message 1 '\\ud800', with half of a"),
    ({"messages": TALK[:1]}, "line 2 has no response: no message of the role 'assistant' with a content"),
    ({**GOOD, "source": []}, "line 2 has the source []; it must be a string or an integer"),
    ({**GOOD, "source": "\ud800"}, "line 2 has the source '\\ud800', with half of a surrogate pair in it"),
  ],
)
def test_a_wrong_row_is_named(tmp_path, row, line):
  rows = [{**GOOD, "source": "x"} if "source" in row else GOOD, row]
  with pytest.raises(UserError) as error:
    load(tmp_path, rows)
  assert line in str(error.value) and "dataset.train=" in str(error.value)


def test_a_message_that_spells_a_special_token_is_refused(tmp_path, tokenizer):
  with pytest.raises(UserError, match=r"line 1 spells the special token '<\|im_end\|>' in its text"):
    load(tmp_path, [{"prompt": "a<|im_end|>b", "response": "c"}], tokenizer=tokenizer, chat_template="plain")


def test_templates_that_are_missing_or_wrong_are_named(tmp_path, tokenizer):
  pytest.importorskip("jinja2")
  bare = tmp_path / "bare"
  bare.mkdir()
  (bare / "tokenizer.json").write_text(pathlib.Path(tokenizer, "tokenizer.json").read_text())
  (bare / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
  broken = tmp_path / "broken.jinja"
  broken.write_text("{% for %}")
  strict = tmp_path / "strict.jinja"
  strict.write_text("{{ raise_exception('roles must alternate') }}")
  for settings, line in (
    ({"tokenizer": str(bare)}, "has no chat template; name a file in dataset.chat_template, or 'plain'"),
    ({"tokenizer": tokenizer, "chat_template": str(broken)}, "broken.jinja is not a chat template"),
    ({"tokenizer": tokenizer, "chat_template": "absent"}, "dataset.chat_template=absent cannot be read"),
    ({"tokenizer": tokenizer, "chat_template": str(strict)}, "line 1 has a conversation that cannot be read"),
    ({"chat_template": str(broken)}, "needs a dataset.tokenizer with its special tokens"),
  ):
    with pytest.raises(UserError) as error:
      load(tmp_path, [GOOD], **settings)
    assert line in str(error.value)


def test_rows_know_their_place():
  assert str(Row("dataset.train=x: line 3", {}).wrong("is empty")) == "dataset.train=x: line 3 is empty"
