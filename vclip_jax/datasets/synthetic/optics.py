"""From log reflectances to a photograph: light, media, lens, aperture, sensor, file."""

import cv2
import numpy as np
import simplejpeg

from vclip_jax.datasets.synthetic.camera import Camera, Colour, Dirt, File, Flare
from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import Stream, View, heading, stream, trace
from vclip_jax.datasets.synthetic.marks import noise

_COARSE, _FINER = 32, 40
"""Number of cells of the grids of the light and of stray light."""
_DAZZLING = np.float32(4.0)
"""Greatest log illumination: whatever it falls on is white."""


def illuminate(log: np.ndarray, case: Case, camera: Camera, view: View) -> np.ndarray:
    """Turn log reflectances into display light [3, height, width] float32, in place.

    display = tint * exp(contrast * (log reflectance + log illumination)), the camera's response as
    a power law.
    """
    exposure = case.quality.exposure
    level = 0.5 * (case.pigmentation - 0.25)  # the flash is adjusted to the fundus
    level += (0.55 if exposure > 0 else 1.1) * exposure
    size = (view.width, view.height)
    for plane, colour, slope, coarse in zip(
        log, camera.tint, camera.contrast, _light(case, camera, view), strict=True
    ):
        plane += cv2.resize(coarse, size)
        plane += np.float32(level + np.log(colour) / slope)
        plane *= np.float32(slope)
    return cv2.exp(log.reshape(3, -1), log.reshape(3, -1)).reshape(log.shape)


def _light(case: Case, camera: Camera, view: View) -> np.ndarray:
    """Return the log illumination of each channel, [3, _COARSE, _COARSE] float32."""
    rng, light = stream(case, Stream.OPTICS), camera.light
    x, y = _aperture_grid(view, _COARSE)
    far = np.hypot(x - np.float32(light.centre[0]), y - np.float32(light.centre[1]))
    shared = light.slope[0] * x + light.slope[1] * y - light.vignette * far**light.steepness
    if light.ring:
        shared += light.ring * np.exp(-(((far - light.ring_radius) / 0.25) ** 2))
    shared += light.uneven * noise(rng, light.cells, shared.shape)
    # Outside of the field a light that grows towards the rim would leave float32's range.
    shared = np.minimum(shared, _DAZZLING)
    by_channel = np.array(light.hue, np.float32)[:, None, None] * shared
    if light.coloured:
        for plane in by_channel:
            plane += np.float32(light.coloured) * noise(rng, light.cells, plane.shape)
    return by_channel


def photograph(display: np.ndarray, case: Case, camera: Camera, view: View) -> np.ndarray:
    """Return the finished picture, uint8 RGB [height, width, 3], from display light.

    `view` is that of the output, `display` has its resolution and is overwritten.
    """
    rng = stream(case, Stream.MEDIA)
    image = display
    _magnify(image[0], camera.aberration, view)
    _magnify(image[2], -camera.aberration, view)
    _blur(image, (camera.blur + 1.5 * case.quality.blur**1.3) * view.scale, 0.35)
    # Bright spots of the fundus saturate towards warm white, never green or blue.
    np.minimum(image[1], np.float32(0.96) * np.minimum(image[0], 1.25), out=image[1])
    bluest = np.float32(max(1.0, camera.tint[2] / camera.tint[1]))
    np.minimum(image[2], bluest * image[1] + np.float32(0.06), out=image[2])
    image = _media(image, case, camera, view, rng)
    image = _knee(image, camera.shoulder)
    if camera.sharpen > 0.05:
        soft = image.copy()
        _blur(soft, max(camera.halo * view.height, 0.8), 0)
        np.subtract(image, soft, out=soft)
        soft *= np.float32(camera.sharpen)
        image += soft
    _add_grain(image, case, camera)
    for plane, black in zip(image, camera.black, strict=True):
        if black:
            plane -= np.float32(black)
            plane *= np.float32(1 / (1 - black))
    if camera.mix:
        image = np.tensordot(np.array(camera.mix, np.float32), image, 1)
    surround = np.array(camera.surround, np.float32)[:, None, None]
    np.maximum(image, 0, out=image)
    image -= surround
    image *= field_of_view(camera, view)
    image += surround
    image *= 255
    image += 0.5
    pixels = cv2.merge(list(np.clip(image, 0, 255, out=image).astype(np.uint8)))
    if camera.interlace:
        pixels[1::2] = np.roll(pixels[1::2], round(camera.interlace * view.width), 1)
    return _stored(pixels, camera.file)


def _stored(pixels: np.ndarray, file: File) -> np.ndarray:
    """Scale the picture down, compress it and scale it up, uint8 RGB [height, width, 3]."""
    height, width = pixels.shape[:2]
    if file.pixels < 1:
        small = (max(8, round(file.pixels * width)), max(8, round(file.pixels * height)))
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    if file.jpeg:
        pixels = simplejpeg.decode_jpeg(
            simplejpeg.encode_jpeg(
                np.ascontiguousarray(pixels),
                quality=file.jpeg,
                colorspace="RGB",
                colorsubsampling="420" if file.subsampled else "444",
            ),
            colorspace="RGB",
        )
    if file.pixels < 1:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(pixels, np.uint8)


def _blur(image: np.ndarray, sigma: float, least: float) -> None:
    """Blur the planes [3, height, width] in place unless `sigma` is below `least` pixels."""
    if sigma > least:
        for plane in image:
            cv2.GaussianBlur(plane, (0, 0), sigma, plane)


def _add_grain(image: np.ndarray, case: Case, camera: Camera) -> None:
    """Add the sensor's noise, which after demosaicking is mostly the same in all channels."""
    if camera.noise < 0.001 and not camera.blotches:
        return
    rng = stream(case, Stream.SENSOR)
    _, height, width = image.shape
    if camera.noise >= 0.001:
        # A smaller picture averages more of the sensor's cells.
        level = np.float32(camera.noise * min(1.0, (height / 512) ** 0.5))
        image += level * _bell(rng, height, width)
        # The channels share the numbers at different places, which saves two draws.
        chroma = np.float32(0.2 * level) * cv2.resize(
            _bell(rng, height // 2, width // 2), (width, height)
        )
        for place, plane in enumerate(image):
            plane += np.roll(chroma, place * (height // 3), 0)
    if camera.blotches:
        # Files store colour with fewer bits than brightness, and blue with the fewest.
        for plane, share in zip(image, (0.5, 0.3, 1.0), strict=True):
            plane += np.float32(share * camera.blotches) * noise(rng, 40, (height, width))


def _bell(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return nearly normal noise [height, width] float32 of mean 0 and variance 1.

    It is the sum of four random bytes, which costs less than half of a normal draw.
    """
    draws = np.frombuffer(rng.bytes(4 * height * width), np.uint8).reshape(4, height, width)
    pairs = [cv2.add(a, b, dtype=cv2.CV_32F) for a, b in (draws[:2], draws[2:])]
    noise = cv2.add(*pairs)
    noise -= np.float32(4 * 255 / 2)
    noise *= np.float32((4 * (256**2 - 1) / 12) ** -0.5)
    return noise


def field_of_view(camera: Camera, view: View) -> np.ndarray:
    """Return each pixel's exposed share, [height, width] float32: aperture, notch and frame."""
    drawn = np.zeros((view.height, view.width), np.uint8)

    def at(point: np.ndarray) -> tuple[int, int]:
        x, y = np.round((point - 0.5) * 16)
        return int(x), int(y)

    cv2.circle(drawn, at(view.centre), round(view.radius * 16), 255, -1, cv2.LINE_AA, 4)
    if camera.notch is not None:
        run = np.array([np.cos(camera.notch), np.sin(camera.notch)])
        place, size = view.centre + view.radius * run, 0.035 * view.radius
        if camera.notch_shape == 1:
            side = np.array([-run[1], run[0]])
            corners = [
                place + size * (i * run + j * side) for i, j in ((1, 1), (1, -1), (-1, -1), (-1, 1))
            ]
            cv2.fillConvexPoly(drawn, np.array([at(c) for c in corners]), 255, cv2.LINE_AA, 4)
        else:
            ink = 0 if camera.notch_shape == 2 else 255
            cv2.circle(drawn, at(place), round(size * 16), ink, -1, cv2.LINE_AA, 4)
    left, top, right, bottom = (max(int(v + 0.5), 0) for v in view.box)
    drawn[:top] = drawn[bottom:] = 0
    drawn[:, :left] = drawn[:, right:] = 0
    return drawn.astype(np.float32) * np.float32(1 / 255)


def _aperture_grid(view: View, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return coarse coordinates, [1, cells] and [cells, 1]; the aperture is the unit circle."""
    step = (np.arange(cells, dtype=np.float32) + 0.5) / cells
    x = (step * view.width - view.centre[0]) / view.radius
    y = (step * view.height - view.centre[1]) / view.radius
    return x[None], y[:, None]


def _magnify(plane: np.ndarray, by: float, view: View) -> None:
    """Magnify the plane [height, width] about the aperture's centre in place."""
    if abs(by) * view.radius < 0.1:
        return
    scale, (cx, cy) = 1 + by, view.centre - 0.5
    matrix = np.array([[scale, 0, -by * cx], [0, scale, -by * cy]])
    size = (plane.shape[1], plane.shape[0])
    plane[:] = cv2.warpAffine(plane, matrix, size, borderMode=cv2.BORDER_REPLICATE)


def _knee(image: np.ndarray, shoulder: float) -> np.ndarray:
    """Compress highlights: linear up to the shoulder, then a parabola that is level at white."""
    room = 1 - shoulder
    over = image - np.float32(shoulder)
    np.clip(over, 0, 2 * room, out=over)
    over *= over
    over *= np.float32(1 / (4 * room))
    image = np.minimum(image, np.float32(shoulder + 2 * room))
    image -= over
    return image


class _Veils:
    """Stray light over the picture: the share of light that passes, and the light that is added.

    Layers are joined on a coarse grid and laid over the picture once.
    """

    def __init__(self) -> None:
        self.through = np.ones((_FINER, _FINER), np.float32)
        self.added = np.zeros((3, _FINER, _FINER), np.float32)

    def blend(self, opacity: np.ndarray, colour: Colour) -> None:
        """Cover the picture with a colour, by an opacity [cells, cells]."""
        left = 1 - np.clip(opacity, 0, 1).astype(np.float32)
        self.through *= left
        for plane, value in zip(self.added, colour, strict=True):
            plane *= left
            plane += np.float32(value) * (1 - left)

    def add(self, light: np.ndarray, colour: Colour) -> None:
        """Add a colour, in proportion to a light [cells, cells]."""
        for plane, value in zip(self.added, colour, strict=True):
            plane += np.float32(value) * light

    def over(self, image: np.ndarray) -> None:
        """Lay the stray light over the image [3, height, width] in place."""
        size = (image.shape[2], image.shape[1])
        through = cv2.resize(self.through, size)
        for plane, added in zip(image, self.added, strict=True):
            plane *= through
            plane += cv2.resize(added, size)


def _media(
    image: np.ndarray, case: Case, camera: Camera, view: View, rng: np.random.Generator
) -> np.ndarray:
    """Add haze of lens and vitreous, flares, stray light at the rim, lid, lashes, dirt."""
    x, y = _aperture_grid(view, _FINER)
    trouble = case.quality.occlusion
    kinds = rng.random(4)
    cloud = noise(rng, 4, (_FINER, _FINER))
    veils = _Veils()
    haze = camera.haze + trouble * (0.75 if kinds[0] < 0.6 else 0.15) * np.clip(
        0.7 + 0.4 * cloud, 0, 1
    )
    haze = haze + 0.25 * case.quality.blur
    if np.max(haze) > 0.02:
        veils.blend(haze, _lit(camera.haze_colour, camera, 0.8))
    for flare in camera.flares:
        veils.add(_flare(flare, x, y), flare.colour)
    if camera.rim > 0:
        facing = 0.5 + 0.5 * np.cos(np.arctan2(y, x) - camera.rim_angle)
        facing = camera.rim_spread + (1 - camera.rim_spread) * facing**2
        depth = np.clip((np.hypot(x, y) - 1 + camera.rim_width) / camera.rim_width, 0, 1.2)
        veils.blend(camera.rim * facing * depth**1.5, camera.rim_colour)
    if trouble > 0.08 and kinds[1] < 0.5:  # the lid's shadow or pink reflection
        sign = 1.0 if kinds[2] < 0.6 else -1.0
        lid = np.clip((sign * y - 1.05 + 0.9 * trouble + 0.08 * cloud) * 3.0, 0, 1)
        veils.blend(0.92 * lid, (0.05, 0.03, 0.03) if kinds[3] < 0.7 else (0.75, 0.5, 0.45))
    veils.over(image)
    if trouble > 0.25 and kinds[2] < 0.45:
        image = _lashes(image, view, trouble, rng)
    dirt = camera.dirt
    if dirt.specks or dirt.rings or dirt.hairs:
        image *= 1 + _shade(dirt, view, rng)
    return image


def _flare(flare: Flare, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the brightness of the flare, 0 to 1, at places in radii."""
    root = flare.stretch**0.5
    u = (x - np.float32(flare.centre[0])) / np.float32(flare.radius * root)
    v = (y - np.float32(flare.centre[1])) / np.float32(flare.radius / root)
    square = u * u + v * v
    if flare.hollow:
        return np.exp(-16 * (np.sqrt(square) - 1) ** 2)
    return np.exp(-0.5 * square)


def _lit(colour: Colour, camera: Camera, weight: float) -> Colour:
    """Mix a scattered light's colour, mostly from the fundus that it comes from."""
    r, g, b = (
        weight * 1.2 * t + (1 - weight) * c for c, t in zip(colour, camera.tint, strict=True)
    )
    return r, g, b


def _lashes(image: np.ndarray, view: View, trouble: float, rng: np.random.Generator) -> np.ndarray:
    """Add out-of-focus lashes from below."""
    n, k = int(8 + 30 * trouble), 6
    foot = np.stack([rng.uniform(-0.8, 0.8, n), np.full(n, 1.05)], 1)
    theta = (
        -np.pi / 2
        + rng.normal(0, 0.25, n)[:, None]
        + np.linspace(0, 1, k) * rng.normal(0, 0.4, (n, 1))
    )
    length = rng.uniform(0.2, 0.9, (n, 1)) * (0.4 + trouble)
    path = foot[:, None] + np.cumsum(
        np.stack([np.cos(theta), np.sin(theta)], -1) * length[..., None] / k, 1
    )
    mask = np.zeros(image.shape[1:], np.uint8)
    pixels = np.round((view.centre + path * view.radius) * 16).astype(np.int32)
    thick = max(1, round(0.02 * view.radius))
    cv2.polylines(mask, list(pixels), False, 255, thick, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(mask, (0, 0), 0.03 * view.radius + 0.5).astype(np.float32)
    return image * (1 - soft * np.float32(0.6 / 255))


def _shade(dirt: Dirt, view: View, rng: np.random.Generator) -> np.ndarray:
    """Return the relative change of each pixel by dirt, [height, width] float32."""
    n = dirt.specks + dirt.rings
    angle, far = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0, 0.95, n))
    size = dirt.size * np.exp(rng.normal(0, 0.4, n)) * view.radius
    tone = 0.4 * rng.uniform(0.05, 1, n) ** 1.5 * np.where(rng.random(n) < dirt.bright, 0.6, -1.0)
    ring = np.arange(n) >= dirt.specks
    size[ring] *= 2.5
    # A speck below a pixel keeps its area: it is drawn larger and fainter.
    least = np.maximum(size, 0.6)
    tone *= (size / least) ** 2
    centre = view.centre + view.radius * far[:, None] * heading(angle)
    places = np.round((centre - 0.5) * 16).astype(int).tolist()
    mask = np.zeros((view.height, view.width), np.float32)
    for place, radius, shade, hollow in zip(
        places, (least * 16).astype(int).tolist(), tone.tolist(), ring.tolist(), strict=True
    ):
        # OpenCV does not antialias on float pixels; the blur below does it.
        thick = max(1, radius // 48) if hollow else -1
        cv2.circle(mask, place, radius, shade, thick, cv2.LINE_8, 4)
    if dirt.hairs:
        bend = rng.uniform(0, 2 * np.pi, (dirt.hairs, 1)) + np.cumsum(
            rng.normal(0, 0.35, (dirt.hairs, 12)), 1
        )
        root = view.centre + view.radius * rng.uniform(-0.7, 0.7, (dirt.hairs, 2))
        paths = np.round(trace(root, bend, 0.05 * view.radius) * 16).astype(np.int32)
        thick = max(1, round(0.012 * view.radius))
        cv2.polylines(mask, list(paths), False, -0.25, thick, cv2.LINE_8, 4)
    return cv2.GaussianBlur(mask, (0, 0), max(0.4 * dirt.size * view.radius, 0.5))
