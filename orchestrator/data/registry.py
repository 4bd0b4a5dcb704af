"""Readers by name."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.data.dataset import Dataset, refuse_bad_rows
from orchestrator.data.r1_reward import read_r1_reward
from orchestrator.errors import RefusedInput

READERS: dict[str, Callable[..., Dataset]] = {"r1_reward": read_r1_reward}


def read_rows(
    path: str,
    *,
    media_root: str | None,
    data_format: str,
    max_pixels: int | None,
    video_frames: int,
    demonstrations: bool = False,
) -> Dataset:
    """Read a dataset with all its bad rows; media are found beside the file unless told otherwise.

    Args:
        demonstrations: The rows are learned from as they are: an assistant's last turn may be what is learned.
    Raises:
        RefusedInput: see the reader; or the media root is no folder.
    """
    file = Path(path)
    root = Path(media_root) if media_root is not None else file.parent
    if media_root is not None and not root.is_dir():
        raise RefusedInput(f"data.media_root {media_root!r} is not a folder")
    return READERS[data_format](
        file, media_root=root, max_pixels=max_pixels, video_frames=video_frames, demonstrations=demonstrations
    )


def read_dataset(
    path: str,
    *,
    media_root: str | None,
    data_format: str,
    max_pixels: int | None,
    video_frames: int,
    max_bad_frac: float,
    demonstrations: bool = False,
) -> Dataset:
    """Read a dataset and apply ``data.max_bad_frac``.

    Raises:
        RefusedInput: see ``read_rows`` and ``refuse_bad_rows``.
    """
    dataset = read_rows(
        path,
        media_root=media_root,
        data_format=data_format,
        max_pixels=max_pixels,
        video_frames=video_frames,
        demonstrations=demonstrations,
    )
    refuse_bad_rows(dataset, name=path, max_bad_frac=max_bad_frac)
    return dataset
