"""Which package brings which flash attention."""

from importlib import metadata

_PACKAGES = {
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
}


def missing_package(attention: str) -> str | None:
    """The package that ``attention`` needs and this environment lacks; None where nothing is missing.

    Asked for by the package's name: two of them bring a module of the same name.
    """
    package = _PACKAGES.get(attention)
    if package is None:
        return None
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return package
    return None
