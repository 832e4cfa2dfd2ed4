"""The study that makes small training and validation files: groups stay together, strata are in both parts."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from dynsel_jax import options
from dynsel_jax.data import json_rows
from experiments.studies import split_rows


def _file(folder, rows):
  path = folder / "rows.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
  return str(path)


def _rows(domains, documents, passages):
  return [
    {"text": f"{domain} {document} {passage}", "domain": domain, "document": document}
    for domain in range(domains)
    for document in range(documents)
    for passage in range(passages)
  ]


def _found(lines):
  rows = [json.loads(line) for line in lines]
  return {(row["domain"], row["document"]) for row in rows}, rows


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.integers(1, 4), st.integers(2, 9), st.integers(1, 3), st.floats(0.01, 0.99), st.floats(0.01, 1.0))
def test_groups_stay_together_and_every_stratum_has_both_parts(
  tmp_path_factory, domains, documents, passages, validation, keep
):
  rows = _rows(domains, documents, passages)
  path = _file(tmp_path_factory.mktemp("rows"), rows)
  made = [split_rows.split(path, "document", "domain", validation, of) for of in (keep, 1.0)]
  (train, kept), (held, held_rows) = _found(made[0][0]), _found(made[0][1])
  whole, whole_rows = _found(made[1][0])
  assert made[0][1] == made[1][1]  # the validation set does not depend on keep
  assert train <= whole and not whole & held
  assert whole | held == {(row["domain"], row["document"]) for row in rows}
  assert {of for of, _ in train} == {of for of, _ in held} == set(range(domains))
  assert len(kept) == passages * len(train) and len(held_rows) == passages * len(held)
  assert len(whole_rows) + len(held_rows) == len(rows)
  of_first = sum(of == 0 for of, _ in held)
  assert of_first == min(max(1, round(validation * documents)), documents - 1)


def test_rows_keep_their_order_and_their_columns(tmp_path):
  rows = [{"prompt": f"{n}", "response": "é" * n, "difficulty": None} for n in range(40)]
  train, held = split_rows.split(_file(tmp_path, rows), validation=0.5)
  assert sorted([json.loads(line) for line in train + held], key=lambda row: int(row["prompt"])) == rows
  for part in (train, held):
    places = [int(json.loads(line)["prompt"]) for line in part]
    assert places == sorted(places) and len(places) == 20


def test_long_rows_are_left_out_and_a_stratum_of_one_group_is_for_training(tmp_path):
  rows = [{"text": "abc", "kind": "a"}, {"text": "abcd", "kind": "b"}, {"text": "xyz", "kind": "b"}]
  path = _file(tmp_path, rows)
  train, held = split_rows.split(path, stratum="kind", validation=0.5)
  assert len(held) == 1 and json.loads(held[0])["kind"] == "b" and len(train) == 2
  train, held = split_rows.split(path, validation=0.5, longest=4)  # characters of text and kind together
  assert {json.loads(line)["text"] for line in train + held} == {"abc", "xyz"}


@pytest.mark.parametrize(
  ("settings", "line"),
  [
    ({"group": "document"}, "line 1 has no column 'document'; give another --group"),
    ({"stratum": "domain"}, "line 1 has no column 'domain'; give another --stratum"),
    ({"validation": 1.0}, "validation=1.0 must lie in (0, 1)"),
    ({"keep": 0.0}, "keep=0.0 must lie in (0, 1]"),
    ({"longest": -1}, "longest=-1 must be at least 0"),
    ({"longest": 1}, "has no group to spare for validation"),
    ({"group": "text"}, "has no group to spare for validation"),
  ],
)
def test_what_cannot_be_split_is_refused_in_one_line(settings, line, tmp_path):
  with pytest.raises(options.UserError) as refused:
    split_rows.split(_file(tmp_path, [{"text": "abc"}, {"text": "abc"}]), **settings)
  assert line in str(refused.value) and "\n" not in str(refused.value)


def test_the_files_are_read_again_and_neither_a_file_nor_the_source_is_written_over(tmp_path, capsys):
  rows = [{"text": f"{n}"} for n in range(10)]
  source, folder = _file(tmp_path, rows), tmp_path / "made"
  parts = split_rows.split(source, validation=0.3)
  split_rows.write(source, str(folder), parts)
  assert "train.jsonl.gz: 7 rows" in capsys.readouterr().out
  before = (folder / "train.jsonl.gz").read_bytes()
  assert [row.held for row in json_rows.read("file", str(folder / "train.jsonl.gz"))] == list(map(json.loads, parts[0]))
  with pytest.raises(options.UserError, match="would overwrite"):
    split_rows.write(str(folder / "train.jsonl.gz"), str(folder), parts)
  with pytest.raises(options.UserError, match="is not a folder"):
    split_rows.write(source, source, parts)
  assert (folder / "train.jsonl.gz").read_bytes() == before
