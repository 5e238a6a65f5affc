"""Draw the damage of the demo: four free photographs in four formats, each with its mask.

Usage: python manifests/make_demo.py [FOLDER]   (default: manifests/demo; needs scikit-image and Pillow: the dev extra)

The same versions of those two give the same files. Masks are white where the image is damaged, drawn a little wider
than the damage itself, as a careful person would.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageFilter

RIM_PX = 2
"""How much wider than the damage a mask is, on every side."""


@dataclass(frozen=True)
class Damaged:
    """A photograph with visible damage (or a thing to remove), and the mask over it."""

    image: Image.Image
    mask: Image.Image


def photograph(name: str) -> Image.Image:
    """One of scikit-image's own photographs, RGB."""
    folder = Path(skimage.__file__).parent / "data"
    return Image.open(next(folder.glob(f"{name}.*"))).convert("RGB")


def mask_over(coverage: Image.Image) -> Image.Image:
    """White wherever `coverage` (grey, 0 = undamaged) is not zero, widened by `RIM_PX`."""
    binary = coverage.point(lambda value: 255 if value > 0 else 0)
    return binary.filter(ImageFilter.MaxFilter(2 * RIM_PX + 1))


def cover(photo: Image.Image, coverage: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """`photo` under a layer of `colour`, as opaque as `coverage` says."""
    return Image.composite(Image.new("RGB", photo.size, colour), photo, coverage)


def scratched(photo: Image.Image, rng: np.random.Generator) -> Damaged:
    """Long bright scratches from edge to edge, some hairs, and specks of dust."""
    width, height = photo.size
    coverage = Image.new("L", photo.size, 0)
    draw = ImageDraw.Draw(coverage)
    for _ in range(7):
        x = rng.uniform(0, width)
        points = []
        for y in np.linspace(rng.uniform(-80, 60), height - rng.uniform(-80, 120), 24):
            x += rng.normal(0, 5)
            points.append((x, y))
        draw.line(points, fill=255, width=int(rng.integers(1, 4)), joint="curve")
    for _ in range(5):
        x, y = rng.uniform(40, width - 120), rng.uniform(40, height - 120)
        start = rng.uniform(0, 360)
        draw.arc((x, y, x + rng.uniform(40, 110), y + rng.uniform(40, 110)), start, start + 130, fill=255, width=2)
    for _ in range(45):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.8, 2.6)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return Damaged(cover(photo, coverage, (244, 240, 228)), mask_over(coverage))


def blob(size: tuple[int, int], centre: tuple[float, float], radius_px: float, rng: np.random.Generator) -> Image.Image:
    """A filled shape with a wavy outline: a circle whose radius carries a few random harmonics."""
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    waves = sum(rng.normal(0, 0.22 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(1, 9))
    radii = radius_px * (1 + waves)
    outline = zip(centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles), strict=True)
    shape = Image.new("L", size, 0)
    ImageDraw.Draw(shape).polygon(list(outline), fill=255)
    return shape


def stained(photo: Image.Image, rng: np.random.Generator) -> Damaged:
    """Blots and splashes of ink, darker at their edge, as ink dries."""
    width, height = photo.size
    coverage = Image.new("L", photo.size, 0)
    spots = [(0.17, 0.72, 26), (0.42, 0.80, 17), (0.83, 0.20, 30), (0.72, 0.55, 13), (0.30, 0.20, 15)]
    spots += [(rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.95), rng.uniform(2, 5)) for _ in range(14)]
    for x, y, radius in spots:
        whole = blob(photo.size, (x * width, y * height), radius, rng)
        inside = whole.filter(ImageFilter.GaussianBlur(3)).point(lambda value: max(0, value - 200))
        coverage = ImageChops.lighter(coverage, ImageChops.subtract(whole, inside))
    return Damaged(cover(photo, coverage, (24, 34, 78)), mask_over(coverage))


def torn(photo: Image.Image, rng: np.random.Generator) -> Damaged:
    """A corner torn off and a hole as large as a thumb: the white of the page shows."""
    width, height = photo.size
    corner = blob(photo.size, (width * 1.02, height * 1.02), 118, rng)
    hole = blob(photo.size, (width * 0.13, height * 0.10), 34, rng)
    loss = ImageChops.lighter(corner, hole)
    fibres = Image.fromarray(rng.normal(232, 5, (height, width)).clip(0, 255).astype(np.uint8))
    page = Image.merge("RGB", (fibres, fibres, fibres.point(lambda value: value - 12)))
    return Damaged(Image.composite(page, photo, loss), mask_over(loss))


def with_an_unwanted_mast(photo: Image.Image) -> Damaged:
    """Nothing is damaged here: the mask lies over the right of the two slender masts, which shall go."""
    mask = Image.new("L", photo.size, 0)
    mast = [(441, 120), (451, 120), (453, 188), (460, 190), (461, 226), (468, 300), (481, 402), (438, 402), (438, 260)]
    ImageDraw.Draw(mask).polygon(mast, fill=255)
    return Damaged(photo, mask_over(mask))


def srgb() -> bytes:
    """An sRGB ICC profile with no date of creation (header bytes 24..35), so that every call gives the same bytes."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def notes() -> Image.Exif:
    """A few EXIF tags, so that the demo shows that they survive."""
    exif = Image.Exif()
    exif[0x010E] = "Eileen Collins; scratches drawn for the demo"  # ImageDescription
    exif[0x013B] = "NASA"  # Artist
    exif[0x8298] = "Public domain"  # Copyright
    return exif


def main() -> None:
    """Write the four images and their masks."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    astronaut = scratched(photograph("astronaut"), np.random.default_rng(1))
    coffee = stained(photograph("coffee").resize((480, 320), Image.Resampling.LANCZOS), np.random.default_rng(2))
    chelsea = torn(photograph("chelsea"), np.random.default_rng(3))
    rocket = with_an_unwanted_mast(photograph("rocket"))

    astronaut.image.save(
        folder / "astronaut.jpg", quality=90, subsampling="4:2:0", exif=notes(), icc_profile=srgb(), dpi=(300, 300)
    )
    coffee.image.save(folder / "coffee.png", optimize=True, dpi=(300, 300))
    chelsea.image.save(folder / "chelsea.tif", compression="tiff_adobe_deflate", tiffinfo={317: 2}, dpi=(600, 600))
    rocket.image.save(folder / "rocket.webp", lossless=True, method=6)
    for name, damaged in {"astronaut": astronaut, "coffee": coffee, "chelsea": chelsea, "rocket": rocket}.items():
        damaged.mask.convert("1").save(folder / f"{name}.mask.png", optimize=True)


if __name__ == "__main__":
    main()
