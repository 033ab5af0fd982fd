"""A short crash campaign for every format; the long one is `python tests/crash/campaign.py`."""

import pytest
from campaign import campaign, markdown, writable_formats


@pytest.mark.slow
@pytest.mark.parametrize("name", writable_formats())
def test_nothing_is_lost_whatever_happens_to_the_writer(name):
    table = campaign(name, 10, seed=1)
    assert (table.fresh, table.append, table.ctrl_c, table.full) == (10, 10, 2, 4)
    assert (table.lost, table.damaged, table.unreadable, table.stuck, table.leftovers) == (0, 0, 0, 0, 0), table
    assert table.equal
    assert not table.crashed
    assert markdown([table]).count("\n") == 2
