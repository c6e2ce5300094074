"""What is opened and what is refused, by its first bytes, its header, or the decoder."""

import ast
import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin, TiffImagePlugin

import vclip_jax
from vclip_jax.data.images import jpeg, opening
from vclip_jax.data.images.decode import decode, read_rgb
from vclip_jax.data.images.opening import FORMATS, MAX_PIXELS_OF, ImageError, open_image
from vclip_jax.datasets.ingest.store import Storage, StoreError, store

PACKAGE = Path(vclip_jax.__file__).parent


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode: str = "RGB", side: int = 40) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).convert(mode)


def test_nothing_else_in_the_package_opens_pictures():
    """Calls of Image.open, imread and imdecode, however the module is called there."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if node.func.attr == "open" and owner.split(".")[-1] == "Image":
                    found.add((path.relative_to(PACKAGE).as_posix(), "Image.open"))
                if node.func.attr in ("imread", "imdecode", "imreadmulti", "imdecodemulti"):
                    found.add((path.relative_to(PACKAGE).as_posix(), node.func.attr))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL"):
                assert "open" not in [name.name for name in node.names], path
    assert found == {
        ("data/images/opening.py", "Image.open"),
        (
            "data/images/sixteen_bit.py",
            "imdecode",
        ),  # of 16-bit files that `open_image` opened before
    }


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_the_formats_of_photographs_are_read(kind):
    options = {"save_all": True, "append_images": [noise()]} if kind == "MPO" else {}
    rgb = read_rgb(encoded(noise(), kind, **options))
    assert rgb.shape == (40, 40, 3)


NOT_READ = {
    "GIF": (encoded(noise("P"), "GIF"), "format not read", "a GIF is not read: convert it to PNG"),
    "AVIF": (b"\0\0\0\x1cftypavif" + bytes(90), "format not read", "an AVIF file is not read"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(90), "format not read", "a HEIC file is not read"),
    "film": (b"\0\0\0\x18ftypmp42" + bytes(90), "format not read", "a film is not read"),
    "DICOM": (bytes(128) + b"DICM" + bytes(90), "format not read", "a DICOM file is not read"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "format not read", "a JPEG 2000 file is not read"),
    "JPEG 2000's code": (b"\xff\x4f\xff\x51" + bytes(9), "format not read", "a JPEG 2000 file"),
    "JPEG XL": (b"\xff\x0a" + bytes(9), "format not read", "a JPEG XL file"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "format not read", "an EPS or PostScript file"),
    "EPS of DOS": (b"\xc5\xd0\xd3\xc6" + bytes(40), "format not read", "an EPS file"),
    "DDS": (b"DDS " + bytes(200), "format not read", "a DDS file"),
    "Photoshop": (b"8BPS\0\1" + bytes(90), "format not read", "a Photoshop file"),
    "SVG": (b"\xef\xbb\xbf \n<svg xmlns='x'/>", "format not read", "an SVG drawing"),
    "PDF": (b"%PDF-1.7\n", "not an image", "it is a PDF document"),
    "ZIP": (b"PK\3\4" + bytes(30), "not an image", "it is a ZIP archive or an Office document"),
    "web page": (b"\n<!DOCTYPE html><title>", "not an image", "it is a web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "not an image", "git lfs pull"),
    "text": ("视网膜正常\n".encode(), "not an image", "it is a text"),
    "empty": (b"", "not an image", "the file is empty"),
    "noise": (b"\x91\x02\xaa\xc3" + bytes(range(128, 200)), "not an image", "starts with 91 02 aa"),
}


@pytest.mark.parametrize("what", NOT_READ)
def test_other_files_are_named_for_what_they_are(what):
    data, reason, message = NOT_READ[what]
    with pytest.raises(ImageError, match=r"^k: cannot read the image") as caught:
        decode(data, 16, key="k")
    assert message in str(caught.value)
    assert caught.value.reason == reason
    with pytest.raises(StoreError) as refused:
        store(data, Storage())
    assert refused.value.reason == reason


def test_no_program_runs_for_a_drawing_that_is_called_a_photograph(tmp_path, monkeypatch):
    """With Ghostscript installed, Pillow gives it the file."""
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n"
    (tmp_path / "eye.jpg").write_bytes(drawing)
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    with pytest.raises(ImageError, match="an EPS or PostScript file is not read"):
        read_rgb((tmp_path / "eye.jpg").read_bytes())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError("deep"),
        struct.error("unpack"),
        zlib.error("Error -3"),
        KeyError("tag"),
        OverflowError("large"),
        AssertionError(),
        ZeroDivisionError(),
        UnicodeDecodeError("a", b"", 0, 1, "b"),
        NotImplementedError("kind"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("place", ["open", "load"])
def test_whatever_a_decoder_raises_is_an_image_error_of_one_line(monkeypatch, error, place):
    def fails(*arguments, **options):
        raise error

    data = encoded(noise(), "PNG")
    if place == "open":
        monkeypatch.setattr(Image, "open", fails)
    else:
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fails)
    for call in (lambda data: decode(data, 16, key="k"), lambda data: store(data, Storage())):
        with pytest.raises(ImageError) as caught:
            call(data)
        assert "\n" not in str(caught.value)


def test_what_the_caller_raises_while_a_picture_is_open_is_not_hidden():
    with pytest.raises(KeyboardInterrupt), open_image(encoded(noise(), "PNG")):
        raise KeyboardInterrupt


# --- Small files that eat the machine.


def webp_that_claims(width: int, height: int) -> bytes:
    """34 bytes: the header of an extended WebP."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    content = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + bytes(4)
    return b"RIFF" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize(
    "data",
    [
        webp_that_claims(16384, 16384),
        b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f"
        + (16383 | 16383 << 14).to_bytes(4, "little")
        + bytes(9),
        b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a"
        + struct.pack("<HH", 16383, 16383)
        + bytes(9),
    ],
)
def test_a_webp_is_measured_before_its_decoder_takes_the_memory(data, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("it was opened"))
    with pytest.raises(ImageError, match=f"more than the {MAX_PIXELS_OF['WEBP']} allowed") as error:
        read_rgb(data)
    assert error.value.reason == "too many pixels"


def test_a_webp_within_the_limits_is_read_whatever_its_kind():
    for options in ({}, {"lossless": True}, {"save_all": True, "append_images": [noise()]}):
        assert read_rgb(encoded(noise(), "WEBP", **options)).shape == (40, 40, 3)


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan stands there again and again."""
    data = encoded(noise(), "JPEG", progressive=True)
    last = [begin for marker, begin, *_ in jpeg.segments(data) if marker == 0xDA][-1]
    end = data.rindex(b"\xff\xd9")
    found = sum(marker == 0xDA for marker, *_ in jpeg.segments(data))
    return data[:end] + data[last:end] * (count - found) + data[end:]


def test_a_jpeg_of_thousands_of_scans_is_refused_at_once():
    data = with_scans(5000)
    start = time.process_time()
    with pytest.raises(ImageError, match="more than 100 scans in a JPEG") as caught:
        read_rgb(data)
    assert time.process_time() - start < 1
    assert caught.value.reason == "too many scans"


def test_metadata_that_looks_like_scans_does_not_count():
    data = encoded(noise(), "JPEG", progressive=True, comment=b"\xff\xda" * 500)
    assert read_rgb(data).shape == (40, 40, 3)


def test_a_baseline_jpeg_with_a_scan_a_colour_is_read_and_counted():
    data = encoded(noise(), "JPEG", quality=90)
    assert not jpeg.read_header(data).several_scans
    assert jpeg.read_header(encoded(noise(), "JPEG", progressive=True)).several_scans


def test_of_thousands_of_tiff_pages_the_second_is_enough(monkeypatch):
    pages = encoded(noise(), "TIFF", save_all=True, append_images=[noise()] * 40)
    monkeypatch.setattr(
        TiffImagePlugin.TiffImageFile,
        "n_frames",
        property(lambda self: pytest.fail("all pages were visited")),
    )
    with pytest.raises(StoreError) as caught:
        store(pages, Storage())
    assert caught.value.reason == "several frames"


def test_a_tiff_of_one_page_is_stored():
    assert store(encoded(noise(), "TIFF"), Storage())[1:] == (40, 40)


def tiff(**more: int) -> bytes:
    """A grey TIFF of 40 x 40 pixels in one strip, with further tags: t254=1."""
    tags = {256: 40, 257: 40, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 40, 279: 1600}
    tags |= {int(name[1:]): value for name, value in more.items()}
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the strip is
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    count = struct.pack("<H", len(tags))
    return b"II*\0" + struct.pack("<I", 8) + count + entries + bytes(4) + bytes(range(40)) * 40


def test_a_tiff_tile_larger_than_any_picture_is_refused():
    assert read_rgb(tiff()).shape == (40, 40, 3)
    with pytest.raises(ImageError, match="65536 x 65536 pixels"):
        read_rgb(tiff(t322=65536, t323=65536))


def test_a_preview_in_a_raw_file_is_not_taken_for_the_photograph():
    with pytest.raises(ImageError, match="its first page is a preview"):
        read_rgb(tiff(t254=1))


def test_large_pictures_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(opening, "_LARGE", 10)
    monkeypatch.setattr(opening, "_large_free", 100)
    from concurrent.futures import ThreadPoolExecutor
    from threading import Lock

    lock, inside, most = Lock(), 0, 0

    def work(pixels: int) -> None:
        nonlocal inside, most
        with opening.wait_for_memory(pixels):
            with lock:
                inside += pixels
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 60, 40, 30, 100, 20, 50, 60]))
    assert 60 <= most <= 100
    assert opening._large_free == 100


def test_xmp_says_how_the_camera_was_held_as_exif_does():
    xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
      ><rdf:RDF><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"
      /></rdf:RDF></x:xmpmeta>"""
    image = noise(side=40).resize((60, 40))
    held = encoded(image, "JPEG", xmp=xmp, quality=95)
    if JpegImagePlugin.JpegImageFile(io.BytesIO(held)).getexif().get(0x0112) != 6:
        pytest.skip("this Pillow does not read it")
    assert read_rgb(held).shape == (60, 40, 3)


@pytest.mark.parametrize("magic", [b"P3", b"P5", b"P6"])
@pytest.mark.parametrize(
    "waste",
    [b"#" + b"x" * (4 << 20) + b"\n", b"#\n" * (2 << 20), b" " * (4 << 20), b"#" * (4 << 20)],
    ids=["a comment", "comments", "spaces", "no end"],
)
def test_a_long_header_of_a_ppm_costs_no_time(magic, waste):
    start = time.process_time()
    with pytest.raises(opening.ImageError, match="its header has more than 65,536 bytes"):
        opening.check(magic + b"\n" + waste + b"1 1\n255\n\0\0\0")
    if waste.startswith(b"#"):
        with pytest.raises(opening.ImageError, match="its header has more than"):
            opening.check(magic + b"\n1 1\n255" + waste + b"\n\0\0\0")
    assert time.process_time() - start < 1


def test_comments_among_the_numbers_of_a_plain_ppm_are_limited():
    with pytest.raises(opening.ImageError, match="more than 1000 comments"):
        opening.check(b"P3\n1 1\n255\n" + b"#\n" * 100_000 + b"1 2 3\n")
    with opening.open_image(b"P3 #a\n1 1\n255\n" + b"#\n" * 100 + b"1 2 3\n") as image:
        assert image.getpixel((0, 0)) == (1, 2, 3)


def test_a_ppm_with_a_comment_and_many_pixels_is_opened():
    pixels = bytes(range(256)) * 1200  # many "#" among them
    for magic, size in ((b"P6", b"320 320"), (b"P5", b"640 480"), (b"P4", b"2048 1200")):
        end = b"" if magic == b"P4" else b" 255"
        data = magic + b"\n# by GIMP\n" + size + end + b"\n" + pixels
        with opening.open_image(data) as image:
            assert image.size == tuple(map(int, size.split()))
