"""What several formats use: files and their seals, threads, images and videos, the dataset over stored columns."""
