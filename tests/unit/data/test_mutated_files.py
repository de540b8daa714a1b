"""Files with mistakes anywhere in them: every one is read, or refused with a message, and the books balance."""

import pytest
from mutated_files import sweep

COUNT = 300
"""`python tests/helpers/mutated_files.py 24000` reads more of them."""


@pytest.mark.parametrize("first", range(0, COUNT, 100))
def test_no_mistake_in_a_file_is_a_traceback_or_costs_a_row_that_is_not_counted(first):
    assert sweep(COUNT // 3, first).total() == COUNT // 3


def test_the_files_are_read_refused_and_stopped_early():
    assert set(sweep(200, 10_000)) == {"read", "refused", "stopped early"}
