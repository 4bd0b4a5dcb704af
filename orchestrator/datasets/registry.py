"""Readers by name."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.datasets.dataset import Dataset, refuse_bad_rows
from orchestrator.datasets.r1_reward import read_r1_reward

READERS: dict[str, Callable[..., Dataset]] = {"r1_reward": read_r1_reward}


def read_dataset(
    path: str, *, media_root: str | None, data_format: str, max_pixels: int, video_frames: int, max_bad_frac: float
) -> Dataset:
    """Read a dataset and apply ``data.max_bad_frac``; media are found beside the file unless told otherwise.

    Raises:
        RefusedInput: see the reader and ``refuse_bad_rows``.
    """
    file = Path(path)
    root = Path(media_root) if media_root is not None else file.parent
    dataset = READERS[data_format](file, media_root=root, max_pixels=max_pixels, video_frames=video_frames)
    refuse_bad_rows(dataset, name=path, max_bad_frac=max_bad_frac)
    return dataset
