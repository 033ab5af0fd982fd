"""The `folder` format beyond what all directory formats share: directories of other programs, and what they see."""

import io

import numpy as np
import pytest
from directory_episodes import make_views
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image

from stable_worldmodel.data import detect_format, load_dataset, open_writer
from stable_worldmodel.data.formats.folder.format import FolderDataset, ImageDataset
from stable_worldmodel.data.formats.shared.images import decode_image, encode_jpeg, encode_png, image_shape
from stable_worldmodel.errors import ContractError, NotFoundError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


def foreign_folder(path, lengths=(3, 2), offsets=None, suffix="jpeg", gray=False, **columns):
    """The layout as the public package writes it, by NumPy and Pillow alone."""
    path.mkdir()
    offsets = np.cumsum(lengths) - np.array(lengths) if offsets is None else offsets
    np.savez(path / "ep_len.npz", np.array(lengths, np.int32))
    np.savez(path / "ep_offset.npz", np.array(offsets, np.int64))
    for name, values in columns.items():
        np.savez(path / f"{name}.npz", values)
    (path / "pixels").mkdir()
    for episode, length in enumerate(lengths):
        for step in range(length):
            level = np.full((6, 8, 3), 60 * episode + 20 * step, np.uint8)
            image = Image.fromarray(level[..., 0] if gray else level)
            image.save(path / "pixels" / f"ep_{episode}_step_{step}.{suffix}")


def public_reader(path):
    """What a reader knows that has never heard of this package."""
    lengths, offsets = (np.load(path / f"ep_{name}.npz")["arr_0"] for name in ("len", "offset"))
    columns = {}
    for entry in path.iterdir():
        if entry.is_dir():
            frames = [
                np.asarray(Image.open(entry / f"ep_{i}_step_{j}.jpeg")) for i, n in enumerate(lengths) for j in range(n)
            ]
            columns[entry.name] = np.stack(frames)
        elif entry.stem not in ("ep_len", "ep_offset"):
            columns[entry.stem] = np.load(entry)["arr_0"]
    return lengths, offsets, columns


def test_public_readers_find_everything(path):
    with open_writer(path, "folder") as writer:
        writer.write_episodes(make_views(k) for k in range(5))
    lengths, offsets, columns = public_reader(path)
    ours = load_dataset(path)
    assert (lengths.dtype, offsets.dtype) == (np.int32, np.int64)
    assert lengths.tolist() == ours.lengths.tolist()
    assert offsets.tolist() == ours.offsets.tolist()
    assert set(columns) == set(make_views(0))
    for name, values in columns.items():
        found = np.concatenate(list(ours.iter_frames(name)))
        if ours.columns[name].kind == "image":
            assert np.abs(found.astype(int) - values).max() <= 3, name  # two JPEG decoders
        else:
            assert values.tolist() == found.tolist() or values.dtype == found.dtype
            assert values.dtype.kind == ("U" if ours.columns[name].kind == "text" else found.dtype.kind)
    assert columns["policy"][0] == "politique-é-0"


def test_public_readers_see_a_prefix_while_it_is_written(path):
    with open_writer(path, "folder") as writer:
        for k in range(9):
            writer.write_episode({"x": np.arange(3) + k, "pixels": make_views(k, rows=3)["pixels"]})
            lengths, _, columns = public_reader(path)
            assert len(lengths) == 2 ** int(np.log2(k + 1))  # 1, 2, 2, 4, 4, 4, 4, 8 ...
            assert len(columns["x"]) == lengths.sum()


@pytest.mark.parametrize("suffix", ["jpeg", "jpg", "png"])
@pytest.mark.parametrize("gray", [False, True])
def test_foreign_images(path, suffix, gray):
    foreign_folder(path, suffix=suffix, gray=gray, x=np.arange(5))
    ds = load_dataset(path, num_steps=2)
    assert detect_format(path).name == "folder"
    assert ds[0]["pixels"].shape == (2, 1 if gray else 3, 6, 8)
    assert ds.get_row_data(4)["pixels"].tolist() == np.full((6, 8, 1 if gray else 3), 80).tolist()
    with open_writer(path, "folder") as writer:
        writer.write_episode({"x": [7], "pixels": np.full((1, 6, 8, 1 if gray else 3), 99)})
    assert (path / "pixels" / f"ep_2_step_0.{suffix}").exists()  # the kind of file stays
    assert load_dataset(path).get_row_data(5)["pixels"].max() == 99


def test_foreign_rows_in_another_order(path):
    foreign_folder(path, lengths=(3, 2), offsets=(2, 0), x=np.array([10, 11, 0, 1, 2]))
    episodes = list(load_dataset(path).iter_episodes())
    assert [episode["x"].tolist() for episode in episodes] == [[0, 1, 2], [10, 11]]
    assert [episode["pixels"][:, 0, 0, 0].tolist() for episode in episodes] == [[0, 20, 40], [60, 80]]
    with open_writer(path, "folder") as writer:
        writer.write_episode(episodes[0])
    assert load_dataset(path).offsets.tolist() == [2, 0, 5]
    assert load_dataset(path).read_rows(2, 0, 3, ["x"])["x"].tolist() == [0, 1, 2]


def test_foreign_columns_of_unusual_types(path, caplog):
    foreign_folder(
        path,
        big_endian=np.arange(5, dtype=">f8"),
        fortran=np.asfortranarray(np.arange(10.0).reshape(5, 2)),
        bytes=np.array(["é".encode(), b"b", b"c", b"d", b"e"]),
        longer=np.arange(9),
        scalar=np.array(3.0),
    )
    ds = load_dataset(path)
    assert "scalar.npz" in caplog.text
    assert ds.get_col_data("big_endian").dtype == np.dtype("=f8")
    assert ds.get_col_data("fortran").tolist() == np.arange(10.0).reshape(5, 2).tolist()
    assert ds.get_col_data("bytes").tolist() == ["é", "b", "c", "d", "e"]
    assert ds.get_col_data("longer").tolist() == [0, 1, 2, 3, 4]
    episode = {name: values[:2] for name, values in ds.read_rows(0, 0, 2).items()}
    with open_writer(path, "folder") as writer:
        writer.write_episode(episode)
    appended = load_dataset(path)
    assert appended.get_col_data("bytes").tolist()[-3:] == ["e", "é", "b"]
    assert appended.get_col_data("fortran").tolist()[-1] == [2.0, 3.0]
    assert appended.get_col_data("longer").tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_objects_are_not_unpickled(path):
    foreign_folder(path, x=np.array([1, None, "a", 2, 3], dtype=object))
    with pytest.raises(ContractError, match="Python objects"):
        load_dataset(path)


def test_strange_entries_are_ignored(path, caplog):
    foreign_folder(path, x=np.arange(5))
    (path / "notes.txt").write_text("mine")
    (path / ".hidden").mkdir()
    (path / "empty").mkdir()
    assert load_dataset(path).column_names == ["pixels", "x"]
    assert "empty holds no frames" in caplog.text


def test_image_of_another_size_is_an_error(path):
    foreign_folder(path)
    Image.new("RGB", (9, 6)).save(path / "pixels" / "ep_1_step_1.jpeg")
    Image.new("RGB", (4, 4)).save(path / "pixels" / "ep_1_step_0.jpeg")
    ds = load_dataset(path, cache="none")
    for row in (0, 1):
        with pytest.raises(ContractError, match=rf"ep_1_step_{row}.jpeg \(episode 1, row {row}\)"):
            ds.read_rows(1, row, row + 1)


def test_image_keys(path):
    with open_writer(path, "folder") as writer:
        writer.write_episode(make_views(0))
    assert "goal" not in ImageDataset(path=path).column_names
    assert "goal" in ImageDataset(path=path, image_keys=["goal"]).column_names
    assert {"goal", "pixels"} <= set(FolderDataset(path=path).column_names)
    assert "pixels" not in FolderDataset(path=path, folder_keys=[]).column_names
    with pytest.raises(ContractError, match=r"pixels_top.* is missing"):
        FolderDataset(path=path, folder_keys=["pixels_top"])
    with pytest.raises(ContractError, match="not the name of a sub-directory"):
        FolderDataset(path=path, folder_keys=["../other"])


def test_constructor_needs_a_place(path):
    with pytest.raises(TypeError, match="FolderDataset needs `name` or `path`"):
        FolderDataset()
    with pytest.raises(NotFoundError, match="does not exist"):
        FolderDataset(path=path)
    with pytest.raises(NotFoundError, match="was not found"):
        FolderDataset("nowhere")


def test_options_are_checked(path):
    with pytest.raises(ContractError, match="image_format"):
        open_writer(path, "folder", image_format="bmp")
    with pytest.raises(ContractError, match="quality"):
        open_writer(path, "folder", quality=0)
    with open_writer(path, "folder") as writer, pytest.raises(ContractError, match=r"ends in '\.npz'"):
        writer.write_episode({"x.npz": np.zeros((2, 8, 8, 3), np.uint8)})
    with open_writer(path, "folder") as writer:
        writer.write_episode(make_views(0))
    with pytest.raises(ContractError, match="cache="):
        load_dataset(path, cache="all")


def test_decoded_cache_and_merged_columns(path):
    with open_writer(path, "folder") as writer:
        writer.write_episodes(make_views(k) for k in range(2))
    ds = load_dataset(path, cache="none", keys_to_cache=["pixels"], keys_to_merge={"both": ["action", "reward"]})
    assert ds.get_dim("both") == 3
    first = ds[0]["pixels"].clone()
    (path / "pixels" / "ep_0_step_0.jpeg").unlink()
    np.testing.assert_array_equal(ds[0]["pixels"], first)


IMAGES = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=20).map(lambda s: (*s[:2], (1, 3, 4)[s[2] % 3]))
)


@settings(max_examples=50, deadline=None)
@given(image=IMAGES)
def test_png_is_exact_and_jpeg_is_what_other_decoders_see(image):
    out = np.empty_like(image)
    data = encode_png(image)
    assert image_shape(data) == image.shape
    decode_image(data, out)
    np.testing.assert_array_equal(out, image)
    if image.shape[2] != 4:
        data = encode_jpeg(image, 95)
        assert image_shape(data) == image.shape
        decode_image(data, out)
        other = np.asarray(Image.open(io.BytesIO(data))).reshape(image.shape)
        assert np.abs(out.astype(int) - other).max() <= 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5).map(lambda s: (*s[:3], 3))))
def test_any_images_come_back_exactly_as_png(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("png") / "set"
    with open_writer(path, "folder", image_format="png") as writer:
        writer.write_episodes([{"view": images}] * 2)
    for episode in load_dataset(path).iter_episodes():
        np.testing.assert_array_equal(episode["view"], images)


def test_pillow_alone_reads_and_writes(path, monkeypatch):
    from stable_worldmodel.data.formats.shared import images

    images._turbojpeg.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "simplejpeg", None)
    try:
        with open_writer(path, "folder") as writer:
            writer.write_episode(make_views(0))
        plain = load_dataset(path).read_rows(0, 0, 6)
    finally:
        images._turbojpeg.cache_clear()
    monkeypatch.undo()
    fast = load_dataset(path).read_rows(0, 0, 6)
    for name in ("pixels", "goal"):
        assert np.abs(plain[name].astype(int) - fast[name]).max() <= 3
        assert np.abs(plain[name].astype(int) - make_views(0)[name][:6]).mean() <= 2
