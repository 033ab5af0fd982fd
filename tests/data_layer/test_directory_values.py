"""Which numbers, texts and images the directory formats keep, and what they take on disk."""

import numpy as np
import pytest
from directory_episodes import FORMATS, make_views
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stable_worldmodel.data import load_dataset, open_writer
from stable_worldmodel.errors import ContractError


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


def test_numbers_of_the_same_kind_are_cast_if_they_fit(path, format):
    with open_writer(path, format) as writer:
        writer.write_episode({"x": np.float32([1, 2]), "n": np.int16([1, 2])})
        writer.write_episode({"x": [0.5, 0.25], "n": [3, 4]})
        with pytest.raises(ContractError, match="n: values do not fit into int16"):
            writer.write_episode({"x": [0.5], "n": [2**20]})
    assert load_dataset(path).get_col_data("x").dtype == np.float32
    assert load_dataset(path).get_col_data("n").tolist() == [1, 2, 3, 4]


def test_texts_of_any_length_are_kept(path, format):
    texts = ["", "a", "é" * 100, "𝄞 clef\n", "b" * 1000]
    with open_writer(path, format) as writer:
        for text in texts:
            writer.write_episode({"text": [text, "x"]})
    assert load_dataset(path).get_col_data("text").tolist() == [item for text in texts for item in (text, "x")]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (7, 13), (1, 1), (33, 20)])
def test_images_of_any_size_keep_their_shape(path, format, size, channels):
    level = np.arange(4, dtype=np.uint8)[:, None, None, None] * 40 + 20
    images = np.broadcast_to(level, (4, *size, channels))
    with open_writer(path, format) as writer:
        writer.write_episode({"view": images, "x": np.arange(4)})
    with open_writer(path, format) as writer:
        writer.write_episode({"view": images, "x": np.arange(4)})
    found = load_dataset(path, cache="none").get_row_data(range(8))["view"]
    assert found.shape == (8, *size, channels)
    error = np.abs(found.astype(int) - np.concatenate([images, images]))
    assert error.max() <= (0 if channels == 4 else 8)


def test_constant_columns_are_stored_once(path, format, tmp_path):
    episode = make_views(0, rows=30, side=96)
    for name, columns in (("set", ("pixels", "goal")), ("without", ("pixels",))):
        with open_writer(tmp_path / name, format) as writer:
            writer.write_episodes([{key: episode[key] for key in (*columns, "reward")}] * 3)
    used = [disk_usage(tmp_path / name) for name in ("set", "without")]
    assert used[0] - used[1] < (used[1] / 2 if format == "video" else used[1] / 10)
    ds = load_dataset(path, cache="none")
    np.testing.assert_array_equal(ds.read_rows(2, 0, 30)["goal"], np.repeat(ds.read_rows(2, 0, 1)["goal"], 30, axis=0))


def disk_usage(folder):
    """Bytes of all files, linked ones counted once."""
    files = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum({found.st_ino: found.st_size for found in files}.values())


NUMBERS = st.sampled_from(
    [np.bool_, np.int8, np.uint8, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64]
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@st.composite
def episode_streams(draw):
    """One to four episodes with the same columns."""
    shapes = draw(
        st.dictionaries(st.sampled_from("abcd"), st.tuples(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=2)))
    )
    text = draw(st.booleans()) or not shapes
    episodes = []
    for rows in draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)):
        episode = {name: draw(hnp.arrays(dtype, (rows, *shape))) for name, (dtype, shape) in shapes.items()}
        if text:
            episode["text"] = draw(st.lists(TEXT, min_size=rows, max_size=rows))
        episodes.append(episode)
    return episodes


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(episodes=episode_streams(), sessions=st.booleans())
def test_any_numbers_and_texts_come_back_as_they_were(tmp_path_factory, format, episodes, sessions):
    path = tmp_path_factory.mktemp("any") / "set"
    if sessions:
        for episode in episodes:
            with open_writer(path, format) as writer:
                writer.write_episode(episode)
    else:
        with open_writer(path, format) as writer:
            writer.write_episodes(episodes)
    for found, expected in zip(load_dataset(path).iter_episodes(), episodes, strict=True):
        assert set(found) == set(expected)
        for name, values in expected.items():
            values = np.asarray(values, dtype=object if name == "text" else None)
            assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
            assert found[name].tobytes() == values.tobytes() if name != "text" else found[name].tolist() == list(values)
