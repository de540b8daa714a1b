"""Token sequences end to end, in memory and in files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.tokens.sequences import Sequences, SequencesWriter, map_sequences

ROWS = [([1, 2], [3]), ([4], [5]), ([6, 7, 8], [9, 10])]
IDS = st.lists(st.integers(0, 200_000), max_size=6)
BATCHES = st.lists(st.lists(st.tuples(IDS, IDS), max_size=4), max_size=4)


def rows_of(data: Sequences) -> list[tuple[list[int], list[int]]]:
    """What `Sequences.build` was given."""
    rows = [data.row(index).tolist() for index in range(len(data))]
    return [(row[:prompt], row[prompt:]) for row, prompt in zip(rows, data.prompt_lengths, strict=True)]


@given(BATCHES.map(lambda batches: [row for batch in batches for row in batch]))
def test_rows_are_what_the_sequences_were_built_from(rows):
    data = Sequences.build(rows)
    assert rows_of(data) == rows
    assert data.lengths.tolist() == [len(prompt) + len(answer) for prompt, answer in rows]
    assert (data.tokens.dtype, data.offsets.dtype, data.prompt_lengths.dtype) == (np.int32, np.int64, np.int32)


@given(BATCHES)
def test_what_was_written_in_batches_is_mapped_as_if_built_at_once(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("sequences")
    writer = SequencesWriter(folder, "train.chosen")
    for batch in batches:
        writer.append(batch)
    writer.close()
    mapped = map_sequences(folder, "train.chosen")
    built = Sequences.build([row for batch in batches for row in batch])
    for name in ("tokens", "offsets", "prompt_lengths"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(built, name), strict=True)


def test_a_writer_that_was_given_nothing_leaves_an_empty_set(tmp_path):
    SequencesWriter(tmp_path, "heldout.answer").close()
    mapped = map_sequences(tmp_path, "heldout.answer")
    assert len(mapped) == 0
    assert mapped.lengths.tolist() == []
    assert mapped.padded([]).shape == (0, 1)


def test_two_parts_in_one_folder_do_not_mix(tmp_path):
    writers = [SequencesWriter(tmp_path, name) for name in ("train.chosen", "train.rejected")]
    for writer, row in zip(writers, ROWS, strict=False):
        writer.append([row])
        writer.close()
    assert rows_of(map_sequences(tmp_path, "train.chosen")) == ROWS[:1]
    assert rows_of(map_sequences(tmp_path, "train.rejected")) == ROWS[1:2]


def test_mapped_tokens_cannot_be_changed(tmp_path):
    writer = SequencesWriter(tmp_path, "train.answer")
    writer.append(ROWS)
    writer.close()
    with pytest.raises(ValueError, match="read-only"):
        map_sequences(tmp_path, "train.answer").tokens[0] = 7


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_batches_are_padded_on_the_right_to_the_longest_of_their_rows(kind):
    data = Sequences.build(ROWS)
    assert data.padded(kind([1, 0])).tolist() == [[4, 5, 0], [1, 2, 3]]
    assert data.padded(kind([2])).tolist() == [[6, 7, 8, 9, 10]]
    assert data.padded(kind([0, 0])).tolist() == [[1, 2, 3], [1, 2, 3]]
    assert data.padded(kind([0])).dtype == np.int64


@given(st.lists(st.integers(0, len(ROWS) - 1), max_size=5))
def test_lengths_of_rows_are_those_of_all_rows_picked(rows):
    data = Sequences.build(ROWS)
    assert data.lengths_of(rows).tolist() == [data.lengths[row] for row in rows]


def test_no_sequences_are_an_empty_set():
    data = Sequences.build([])
    assert len(data) == 0
    assert data.lengths.tolist() == []
    assert data.offsets.tolist() == [0]
