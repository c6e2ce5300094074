"""From log reflectances to a photograph: light, media, lens, aperture, sensor, file."""

import cv2
import numpy as np

from vclip_jax.datasets.synthetic.camera import Camera, Colour
from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import Stream, View, stream
from vclip_jax.datasets.synthetic.marks import noise

_COARSE = 32


def illuminate(log: np.ndarray, case: Case, camera: Camera, view: View) -> np.ndarray:
    """Turn log reflectances into display light [3, height, width] float32, in place.

    display = tint * exp(contrast * (log reflectance + log illumination)), the camera's response as
    a power law.
    """
    rng = stream(case, Stream.OPTICS)
    x, y = _aperture_grid(view, _COARSE)
    square = x * x + y * y
    light = camera.slope[0] * x + camera.slope[1] * y - camera.vignette * square**1.5
    exposure = case.quality.exposure
    light += 0.5 * (case.pigmentation - 0.25)  # the flash is adjusted to the fundus
    light += (0.55 if exposure > 0 else 1.1) * exposure + 0.05 * noise(rng, 3, light.shape)
    light = cv2.resize(light.astype(np.float32), (view.width, view.height))
    for plane, tint, slope, loss in zip(
        log, camera.tint, camera.contrast, (0.9, 1, 1.1), strict=True
    ):
        cv2.scaleAdd(light, loss, plane, plane)
        plane *= np.float32(slope)
        plane += np.float32(np.log(tint))
    return cv2.exp(log.reshape(3, -1), log.reshape(3, -1)).reshape(log.shape)


def photograph(display: np.ndarray, case: Case, camera: Camera, view: View) -> np.ndarray:
    """Return the finished picture, uint8 RGB [height, width, 3], from display light.

    `view` is that of the output, `display` has its resolution and is overwritten.
    """
    rng = stream(case, Stream.MEDIA)
    image = display
    _magnify(image[0], camera.aberration, view)
    _magnify(image[2], -camera.aberration, view)
    _blur(image, (camera.blur + 1.5 * case.quality.blur**1.3) * view.scale, 0.35)
    image = _media(image, case, camera, view, rng)
    image = _knee(image)
    if camera.sharpen > 0.05:
        soft = image.copy()
        _blur(soft, max(0.004 * view.height, 0.8), 0)
        np.subtract(image, soft, out=soft)
        soft *= np.float32(camera.sharpen)
        image += soft
    _add_grain(image, case, camera)
    surround = np.array(camera.surround, np.float32)[:, None, None]
    image -= surround
    image *= field_of_view(camera, view)
    image += surround
    image *= 255
    image += 0.5
    pixels = cv2.merge(list(np.clip(image, 0, 255, out=image).astype(np.uint8)))
    if camera.jpeg:
        flags = [cv2.IMWRITE_JPEG_QUALITY, camera.jpeg]
        _, code = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), flags)
        pixels = cv2.imdecode(code, cv2.IMREAD_COLOR_RGB)
    return np.asarray(pixels, np.uint8)


def _blur(image: np.ndarray, sigma: float, least: float) -> None:
    """Blur the planes [3, height, width] in place unless `sigma` is below `least` pixels."""
    if sigma > least:
        for plane in image:
            cv2.GaussianBlur(plane, (0, 0), sigma, plane)


def _add_grain(image: np.ndarray, case: Case, camera: Camera) -> None:
    """Add the sensor's noise, which after demosaicking is mostly the same in all channels."""
    if camera.noise < 0.001:
        return
    rng = stream(case, Stream.SENSOR)
    _, height, width = image.shape
    # A smaller picture averages more of the sensor's cells.
    level = np.float32(camera.noise * min(1.0, (height / 512) ** 0.5))
    image += level * _bell(rng, height, width)
    for plane in image:
        chroma = _bell(rng, height // 2, width // 2)
        plane += np.float32(0.4 * level) * cv2.resize(chroma, (width, height))


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


def _knee(image: np.ndarray) -> np.ndarray:
    """Compress highlights: linear up to 0.75, then a parabola that reaches white at 1.25."""
    over = image - np.float32(0.75)
    np.clip(over, 0, 0.5, out=over)
    over *= over  # over 4 (1 - 0.75) = 1
    image = np.minimum(image, np.float32(1.25))
    image -= over
    # Bright spots of the fundus saturate towards warm white, never green or blue.
    np.minimum(image[1], np.float32(0.96) * image[0], out=image[1])
    np.minimum(image[2], image[1] + np.float32(0.06), out=image[2])
    return image


def _veil(image: np.ndarray, opacity: np.ndarray, colour: Colour) -> np.ndarray:
    """Blend the image towards a colour with a coarse opacity map."""
    size = (image.shape[2], image.shape[1])
    full = cv2.resize(np.clip(opacity, 0, 1).astype(np.float32), size)
    veiled = np.array(colour, np.float32)[:, None, None] - image
    veiled *= full
    veiled += image
    return veiled


def _media(
    image: np.ndarray, case: Case, camera: Camera, view: View, rng: np.random.Generator
) -> np.ndarray:
    """Add haze of lens and vitreous, stray light at the rim, lid, lashes, dust."""
    x, y = _aperture_grid(view, _COARSE)
    trouble = case.quality.occlusion
    kinds = rng.random(4)
    cloud = noise(rng, 4, (_COARSE, _COARSE))
    haze = camera.haze + trouble * (0.75 if kinds[0] < 0.6 else 0.15) * np.clip(
        0.7 + 0.4 * cloud, 0, 1
    )
    haze = haze + 0.25 * case.quality.blur
    if np.max(haze) > 0.02:
        image = _veil(image, haze, _lit(camera.haze_colour, camera, 0.8))
    if camera.rim > 0:
        facing = 0.5 + 0.5 * np.cos(np.arctan2(y, x) - camera.rim_angle)
        depth = np.clip((np.hypot(x, y) - 1 + camera.rim_width) / camera.rim_width, 0, 1.2)
        image = _veil(image, camera.rim * facing**2 * depth**1.5, camera.rim_colour)
    if trouble > 0.08 and kinds[1] < 0.5:  # the lid's shadow or pink reflection
        sign = 1.0 if kinds[2] < 0.6 else -1.0
        lid = np.clip((sign * y - 1.05 + 0.9 * trouble + 0.08 * cloud) * 3.0, 0, 1)
        image = _veil(
            image, 0.92 * lid, (0.05, 0.03, 0.03) if kinds[3] < 0.7 else (0.75, 0.5, 0.45)
        )
    if trouble > 0.25 and kinds[2] < 0.45:
        image = _lashes(image, view, trouble, rng)
    if camera.dust:
        image = _dust(image, camera.dust, view, rng)
    return image


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


def _dust(image: np.ndarray, n: int, view: View, rng: np.random.Generator) -> np.ndarray:
    """Add specks on the optics: small discs, dark or faintly bright, out of focus."""
    angle, far = rng.uniform(0, 6.28, n), np.sqrt(rng.uniform(0, 0.9, n))
    size, tone = rng.uniform(0.006, 0.03, n), rng.choice([-0.35, -0.2, 0.12], n)
    mask = np.zeros(image.shape[1:], np.float32)
    for a, f, s, t in zip(angle, far, size, tone, strict=True):
        centre = view.centre + f * view.radius * np.array([np.cos(a), np.sin(a)])
        place = tuple(int(v) for v in np.round(centre * 16))
        cv2.circle(mask, place, int(max(s * view.radius, 0.7) * 16), float(t), -1, cv2.LINE_8, 4)
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.012 * view.radius, 0.6))
    return image * (1 + soft)
