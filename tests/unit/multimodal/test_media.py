"""Media stay inside their root, are measured before they are decoded, and are known by their bytes."""

import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from workers.multimodal import pictures
from workers.multimodal.media import MediaError, load_image, probe_image, resolve_media, sample_frames, shown_name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def _picture(path: Path, *, size: tuple[int, int] = (6, 4), color: str = "red") -> Path:
    Image.new("RGB", size, color).save(path)
    return path


def _refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(MediaError, match=f"^{re.escape(message)}$"):
        call()


def test_a_path_is_found_by_its_relative_and_its_absolute_name(root: Path) -> None:
    picture = _picture(root / "a.png")
    assert resolve_media("a.png", root=root) == resolve_media(str(picture), root=root) == picture


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "link.png", "linked/secret.png"])
def test_a_path_that_leaves_the_root_is_refused(root: Path, name: str) -> None:
    secret = _picture(root.parent / "secret.png")
    (root / "link.png").symlink_to(secret)
    (root / "linked").symlink_to(root.parent)
    _refuses(lambda: resolve_media(name, root=root), f"{name!r} is outside the media root {str(root)!r}")


def test_an_absolute_path_outside_the_root_is_refused(root: Path) -> None:
    secret = str(_picture(root.parent / "secret.png"))
    with pytest.raises(MediaError, match=r"secret\.png' is outside the media root '.*root'$"):
        resolve_media(secret, root=root)


def test_a_link_that_stays_inside_the_root_is_followed(root: Path) -> None:
    (root / "link.png").symlink_to(_picture(root / "a.png"))
    assert resolve_media("link.png", root=root) == root / "a.png"


def test_a_missing_file_is_named(root: Path) -> None:
    _refuses(lambda: resolve_media("x.png", root=root), f"'x.png' is not found under the media root {str(root)!r}")


@pytest.mark.parametrize("name", ["a\0.png", "a" * 300, "loop"])
def test_what_is_no_path_is_refused(root: Path, name: str) -> None:
    (root / "loop").symlink_to(root / "loop")
    _refuses(lambda: resolve_media(name, root=root), f"{shown_name(name)} is not a usable path")


def test_an_image_is_known_by_its_bytes_and_its_size(root: Path) -> None:
    first = probe_image(_picture(root / "a.png"), max_pixels=24)
    again = probe_image(_picture(root / "b.png"), max_pixels=24)
    other = probe_image(_picture(root / "c.png", color="blue"), max_pixels=24)
    assert (first.width, first.height) == (6, 4)
    assert first.sha256 == again.sha256 != other.sha256


def test_an_image_above_the_limit_is_refused_without_being_decoded(root: Path) -> None:
    picture = _picture(root / "a.png")
    picture.write_bytes(picture.read_bytes()[:45])  # the header is whole, the pixels are not
    message = "'a.png' has 6 x 4 = 24 pixels, more than max_pixels = 23"
    _refuses(lambda: probe_image(picture, max_pixels=23), message)
    damaged = "'a.png' is not a readable image: a PNG that is truncated or damaged"
    _refuses(lambda: probe_image(picture, max_pixels=24), damaged)
    _refuses(lambda: probe_image(picture), damaged)


def test_an_image_beyond_the_decoders_own_limit_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = _picture(root / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 11)
    with pytest.raises(MediaError, match=r"^'a.png' is refused before decoding: .*24 pixels.* limit of 22 pixels"):
        probe_image(picture, max_pixels=100)


def test_no_setting_lets_an_image_of_any_size_be_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = _picture(root / "a.png")
    monkeypatch.setattr(pictures, "MOST_PIXELS", 23)
    message = "'a.png' is refused before decoding: it has 6 x 4 = 24 pixels, more than 23"
    _refuses(lambda: probe_image(picture), message)
    _refuses(lambda: probe_image(picture, max_pixels=100), message)


def test_a_pipe_is_refused_instead_of_waited_for(root: Path) -> None:
    os.mkfifo(root / "a.png")
    _refuses(lambda: probe_image(root / "a.png", max_pixels=24), "'a.png' is not a file but a pipe")


def test_loading_gives_rgb_whatever_the_file_holds(root: Path) -> None:
    Image.new("L", (6, 4), 7).save(root / "grey.png")
    image = load_image(probe_image(root / "grey.png", max_pixels=24))
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (7, 7, 7))


def test_a_file_changed_since_it_was_probed_is_refused(root: Path) -> None:
    ref = probe_image(_picture(root / "a.png"), max_pixels=24)
    _picture(root / "a.png", color="blue")
    _refuses(lambda: load_image(ref), f"{shown_name(ref.path)} has changed since the data was read")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("file://{root}/a%20b.png", "a b.png"),
        ("file:{root}/a.png", "a.png"),
        ("FILE://localhost{root}/%C3%BC%23.png", "ü#.png"),
    ],
)
def test_a_file_address_is_read(root: Path, name: str, file: str) -> None:
    picture = _picture(root / file)
    assert resolve_media(name.format(root=root), root=root) == picture


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file:///etc/hostname", "is outside the media root"),
        ("file://{root}/../secret.png", "is outside the media root"),
        ("file://{root}/%2e%2e/secret.png", "is outside the media root"),
        ("file://{root}/x.png", "is not found under the media root"),
        ("file://elsewhere/a.png", "is a file on another machine, 'elsewhere'"),
        ("https://example.org/a.png?b=c", "is an address; images are read from files under the media root"),
        ("s3://bucket/a.png", "is an address; images are read from files under the media root"),
        ("data:image/png;base64,iVBORw0KGgo=", "is a data: URI; images are read from files under the media root"),
        ("iVBORw0KGgo" + "Ab3/" * 40, "is base64 text and no name; images are read from files under the media root"),
        ("/9j/4AAQ" + "Ab3/" * 40_000, "is base64 text and no name; images are read from files under the media root"),
        ("Ab3+" * 40_000, "is base64 text and no name; images are read from files under the media root"),
    ],
)
def test_what_is_no_file_under_the_root_is_refused_by_name_in_a_line(root: Path, name: str, reason: str) -> None:
    _picture(root.parent / "secret.png")
    name = name.format(root=root)
    with pytest.raises(MediaError) as caught:
        resolve_media(name, root=root)
    assert reason in str(caught.value) and name[:20] in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["a.png", "x" * 80, "x" * 81, "/9j/" + "A/b3" * 40_000, "\n\x1b[31m" * 99, "it's \"" * 40]
)
def test_a_name_takes_a_line_and_no_more(name: str) -> None:
    shown = shown_name(name)
    assert shown.isprintable() and len(shown) < 500 and name[:1] in shown.replace("\\n", "\n")
    assert shown == repr(name) or (len(name) > 80 and " ... " in shown)


def test_an_image_that_was_measured_otherwise_is_refused(root: Path) -> None:
    ref = replace(probe_image(_picture(root / "a.png")), width=4, height=6)
    message = f"{shown_name(ref.path)} is 6 x 4, but 4 x 6 where it was measured: import it again"
    _refuses(lambda: load_image(ref), message)


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MediaError("a.png", "is gone")))  # noqa: S301 - our own bytes
    assert (str(error), error.problem) == ("'a.png' is gone", "is gone")


def test_frames_are_spread_evenly_in_natural_order(root: Path) -> None:
    for number in range(12):
        _picture(root / f"frame_{number}.png")
    (root / "notes.txt").write_text("no frame")
    # 0, 11/3, 22/3, 11 rounded
    names = [frame.name for frame in sample_frames(root, num_frames=4)]
    assert names == ["frame_0.png", "frame_4.png", "frame_7.png", "frame_11.png"]
    assert [frame.name for frame in sample_frames(root, num_frames=1)] == ["frame_0.png"]
    assert len(sample_frames(root, num_frames=100)) == 12


def test_frames_may_come_in_plain_order_of_their_names(root: Path) -> None:
    for number in (1, 2, 10):
        _picture(root / f"{number}.png")
    frames = sample_frames(root, num_frames=3, order="name")
    assert [frame.name for frame in frames] == ["1.png", "10.png", "2.png"]


def test_frame_names_may_hold_digits_that_are_no_numbers(root: Path) -> None:
    for name in ("1²2.png", "frame_1.png"):
        _picture(root / name)
    assert len(sample_frames(root, num_frames=2)) == 2


def test_a_folder_without_frames_is_refused(root: Path) -> None:
    (root / "clip").mkdir()
    (root / "clip" / "notes.txt").write_text("no frame")
    message = "'clip' holds no frames (.png, .jpg, .jpeg, .webp, .bmp)"
    _refuses(lambda: sample_frames(root / "clip", num_frames=2), message)
    _refuses(lambda: sample_frames(root / "clip" / "notes.txt", num_frames=2), "'notes.txt' is not a folder of frames")
