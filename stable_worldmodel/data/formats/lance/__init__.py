"""`lance` and `lance_video`: tables of rows with JPEG images, or with one MP4 per episode, in the Lance file format.

A dataset is up to three tables:

| table | one row per | fields |
|---|---|---|
| `X.lance`, "frames" | step | `episode_idx`, `step_idx`, images as JPEG, numbers as lists of float32 |
| `X_episodes.lance`, "episodes" | episode | optional: per-episode data, and what rows of float32 cannot hold |
| `X_videos.lance`, "videos" | episode and view | only in `lance_video`: MP4 |

Public tools read all of them. What only this package knows is in the metadata of fields (what a column was), in the
table of episodes (all bits of integers and doubles, texts, constant images once), and beside the tables: journal, lock,
and the log of episodes that are not in the tables yet.

| module | what is in it |
|---|---|
| `location` | which tables a path means |
| `schema` | where each column lies, and what fields say about themselves |
| `rows`, `fitting` | an episode as rows; whether it fits the dataset |
| `tables` | everything that calls pylance |
| `pages`, `values` | encoded images as slices of mapped files, without pylance |
| `store` | tables and log at one moment: what readers, writers and checks work on |
| `frames`, `layout` | columns as a dataset reads them |
| `writer`, `verify` | appending, replacing, recovery; checks and repair |
| `format`, `video` | the two formats and their datasets |
"""

from stable_worldmodel.data.formats.lance.format import LanceDataset, LanceFormat
from stable_worldmodel.data.formats.lance.video import LanceVideoDataset, LanceVideoFormat

__all__ = ["LanceDataset", "LanceFormat", "LanceVideoDataset", "LanceVideoFormat"]
