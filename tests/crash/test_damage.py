"""Some damaged datasets of every format; many more are made by `python tests/crash/damage.py`."""

import pytest
from campaign import writable_formats
from damage import campaign, markdown

OWN_FILES = {"folder", "video", "hf_arrow"}  # all of what these read is ours: nothing but errors that name the dataset


@pytest.mark.slow
@pytest.mark.parametrize("name", writable_formats())
def test_damage_is_never_silent(name):
    table = campaign(name, 40, seed=1)
    assert table.damages == 40
    assert table.error
    assert (table.unseen, table.hangs, table.crashes) == (0, 0, 0), table
    if name in OWN_FILES:
        assert (table.seen, table.faults) == (0, 0), table
    assert markdown([table]).count("\n") == 2
