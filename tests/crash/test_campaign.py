"""A short crash campaign for every format; the long one is `python tests/crash/campaign.py`."""

import pytest
from campaign import campaign, writable_formats


@pytest.mark.slow
@pytest.mark.parametrize("name", writable_formats())
def test_nothing_is_lost_whatever_happens_to_the_writer(name):
    table = campaign(name, 10, seed=1)
    assert (table["lost"], table["damaged"], table["unreadable"], table["stuck"]) == (0, 0, 0, 0), table
    assert table["equal"]
    assert table["exception"]
    assert table["full_disk"] == "ok" or table["full_disk"].startswith("not tried")
    assert table["concurrent_reader"]
