"""What a folder of data is: a preference store, or the shards of one file."""

from pathlib import Path

_OF_STORE = "instructions"
"""A store keeps its tables in folders of their own."""
SUFFIXES = (".parquet", ".jsonl", ".json", ".arrow")
"""Of files with rows."""
SPLITS_FILE = "dataset_dict.json"
"""Where ``datasets`` says which splits it has saved, each in a folder of its own."""
STATE_FILE = "state.json"
"""Where it says which files a split consists of."""
_WITHOUT_ROWS = (
    "manifest.json",
    "quarantine.jsonl",
    "dataset_info.json",
    "dataset_infos.json",
    STATE_FILE,
    SPLITS_FILE,
)


def files_with_rows(folder: Path) -> list[Path]:
    """Those of a folder, by name; the hidden ones are of programs."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and file.name not in _WITHOUT_ROWS and file.name[0] not in "._" and file.is_file()
    )


def holds_shards(path: str | Path) -> bool:
    """Whether it is a folder of files with rows, or one that ``datasets`` saved."""
    folder = Path(path)
    if not folder.is_dir() or (folder / _OF_STORE).is_dir():
        return False
    return (folder / SPLITS_FILE).is_file() or (folder / STATE_FILE).is_file() or bool(files_with_rows(folder))


def is_store(path: str | Path) -> bool:
    """Whether it is a folder that can only be a preference store, be it a broken one."""
    return Path(path).is_dir() and not holds_shards(path)
