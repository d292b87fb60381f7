"""Scores images with a detector that `anomaly-ae export` wrote as ONNX. Needs onnxruntime, NumPy and Pillow alone.

    python score_onnx.py detector.onnx FOLDER        # or image files; prints a line of JSON for each

Exit codes: 0 done, 1 could not, 2 used wrongly. Images are known by their endings; no link to a folder is followed.
Of what anomaly-ae reads, colours of more than 8 bits, rare gray TIFFs, PGMs, PFMs, and LAB in gray are errors here.
"""

import io
import json
import os
import re
import sys
from contextlib import suppress
from os.path import exists, isdir, isfile, join, realpath
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

LARGEST_FILE, LARGEST_PICTURE, MOST_REGIONS = 2**29, 2**26, 20  # bytes, pixels
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")  # no other decoder is ever run
NAME = re.compile(rb"\.(png|jpe?g|jpe|jfif|bmp|dib|gif|tiff?|webp|p[bgnpf]m)\Z", re.IGNORECASE)  # of an image
JUNK = rb"@eadir|_?thumbs|thumb(nails)?|__macosx|heat(maps?|[_ -]maps)|overlays?|#recycle|\$recycle\.bin|lost\+found"
LEFT_OUT = re.compile(rb"(\A|[/\\])(\.|(" + JUNK + rb")[/\\])", re.IGNORECASE)  # hidden, or in such a folder
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's transpositions, by EXIF's orientation
DEEP = dict.fromkeys(("I;12", "I;16", "I;16B", "I;16N", "I;16S", "I;32S"), "whole") | {"F;32F": "floats"}  # raw modes


def look(size: Any, about: Any) -> tuple[Any, ...]:
    """Where to look in a picture, bool (H, W); start and size of the part with that; where in it starts and ends what
    is seen; and where that lies for the detector: left, top, width, height."""
    mask, box = np.zeros(size[::-1], bool), np.array([about.width, about.height])
    edges = np.floor(np.round(np.array(about.looked_at) * (size * 2), 6) + 0.5).astype(int)
    for left, top, right, bottom in edges:
        mask[top:bottom, left:right] = True
    first = np.minimum(edges[:, :2].min(axis=0), np.subtract(size, 1))
    mask[first[1], first[0]] |= not mask.any()
    part = np.maximum(edges[:, 2:].max(axis=0), first + 1) - first
    start = (part - box / (box / part).max()) / 2 if about.fit == "crop" else np.zeros(2)
    small = np.rint(part * (box / part).min()).clip(1).astype(int) if about.fit == "pad" else box
    return mask, first, part, start, part - start, (*(box - small) // 2, *small)


def eight_bits(image: Any, about: Any) -> Any:
    """A picture with 8 bits, over black. Raises `ValueError` where it has more, and they cannot all be had."""
    codec, _, _, args = image.tile[0] if image.tile else ("", None, 0, "")
    raw, tags = str(args if isinstance(args, str) else args[0]), getattr(image, "tag_v2", {})
    if raw in DEEP:
        values, (low, high) = np.asarray(image), about.levels[DEEP[raw]]
        if not np.isfinite(values[look(values.shape[::-1], about)[0]]).any():
            raise ValueError("it holds no value that is a number")
        scaled = np.where(values == image.info.get("transparency", np.nan), 0, values).astype(float)
        scaled = np.nan_to_num(scaled, nan=low, posinf=high, neginf=low).clip(low, high) - low
        pixels = np.rint(scaled * (255 / (high - low))).astype(np.uint8)
        return Image.fromarray(255 - pixels if tags.get(262) == 0 else pixels)
    deep = image.mode[0] in "IF" or "16B" in raw or max(tags.get(258, (8,))) > 8 or tags.get(339, (1,))[0] != 1
    if deep or ((codec[:3], image.mode) == ("ppm", "RGB") and int(args[1]) > 255):
        raise ValueError("only anomaly-ae reads all its bits")
    image.load()
    black = Image.new("RGBA", image.size, "black")
    return Image.alpha_composite(black, image.convert("RGBA")) if image.has_transparency_data else image


def decode(path: bytes, about: Any) -> tuple[Any, Any, str]:
    """What is seen of a file, uint8 (C, H, W), the picture's width and height, and what is wrong with it."""
    try:
        if not isfile(path) or os.stat(path).st_size > LARGEST_FILE:
            raise ValueError("it is no file, or too large")
        image: Any = Image.open(io.BytesIO(np.fromfile(path, np.uint8).tobytes()), formats=FORMATS)
        size, sides, turn = image.size, np.array(image.size if about.fit == "crop" else (1, 1)), None
        if size[0] * size[1] > LARGEST_PICTURE:
            raise ValueError(f"{size[0]}×{size[1]} pixels are too many")
        if not about.roi:
            image.draft(None, np.ceil(sides * (4 * max(about.width, about.height) / sides.min())).tolist())
        flat = eight_bits(image, about)
        with suppress(Exception):  # a picture with a broken remark is a picture
            turn = TURNS.get(image.getexif().get(274)) if image.format != "TIFF" else None
        plain = (flat if turn is None else flat.transpose(turn)).convert("L" if about.channels == 1 else "RGB")
        mask, first, part, start, end, (left, top, *small) = look(plain.size, about)
        bare: Any = Image.composite(plain, Image.new(plain.mode, plain.size), Image.fromarray(mask))
        seen = bare.crop((*first, *first + part)).resize(small, Image.Resampling.BILINEAR, (*start, *end))
        whole = seen.crop((-left, -top, about.width - left, about.height - top))  # black around it
        return np.atleast_3d(whole).transpose(2, 0, 1), size[::-1] if turn in (2, 4, 5, 6) else size, ""
    except Exception as error:  # noqa: BLE001  whatever it is, it costs this file alone
        text = str(error).partition(" <")[0] or type(error).__name__
        return np.zeros((about.channels, about.height, about.width), np.uint8), (0, 0), f"cannot be read ({text})"


def regions(heat: Any, size: Any, about: Any) -> str:
    """The connected parts of an anomaly map above its level, the highest peak first, as JSON."""
    inside, first, _, start, end, (left, top, *small) = look(size, about)
    begin, heat = first + start, heat[top : top + small[1], left : left + small[0]]
    extent = first + end - begin
    for at, side, count in list(zip(begin, extent, small, strict=True))[::-1]:  # down, then across: are pixels under
        edges = at + side * np.arange(count + 1) / count  # this one of the map looked at?
        middles, reach = (edges[:-1] + edges[1:]) / 2, side / count / 2 - 1e-6 if side >= count else 0
        inside = np.stack([inside[int(at - reach) : int(at + reach) + 1].any(axis=0) for at in middles], axis=1)
    rest, parts, found = set(map(tuple, np.argwhere(inside & (heat > about.heat_level)).tolist())), [], list[Any]()
    for pixel in sorted(rest):
        if pixel in rest:
            parts.append([pixel])
            for y, x in parts[-1]:  # which grows on the way
                near = rest & {(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
                rest -= near
                parts[-1] += near - {pixel}
    for y, x in sorted(map(np.transpose, parts), key=lambda part: -heat[tuple(part)].max())[:MOST_REGIONS]:
        peak, peaks, step = heat[y, x].max(), np.array([*about.heat_peaks, np.inf], np.float32), extent / small
        shares = (begin + (x.min(), y.min()) * step) / size, (np.ptp(x) + 1, np.ptp(y) + 1) * step / size
        *box, area = (float(f"{each:.6g}") for each in (*shares[0], *shares[1], len(x) * (step / size).prod()))
        found.append(dict(box=box, area=area, peak=float(str(peak)), p=float(np.mean(peaks >= peak))))
    if len(parts) > MOST_REGIONS:
        found[-1]["more"] = len(parts) - MOST_REGIONS
    return json.dumps(found)


def main(detector: str, *places: str) -> int:
    session = onnxruntime.InferenceSession(detector, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    if facts.get("format") != "1":
        raise ValueError(f"{detector} is not from this version of anomaly-ae; export it again")
    about = SimpleNamespace(**{k: json.loads(v) for k, v in facts.items()}, **json.loads(facts["preprocessing"]))
    root, paths = b"", sorted({realpath(os.fsencode(place)) for place in places})
    if len(paths) == 1 and isdir(paths[0]):
        root, say = join(paths[0], b""), lambda error: print(error, file=sys.stderr)
        found = (join(folder, name) for folder, _, names in os.walk(root, onerror=say) for name in names)
        images = (path for path in found if NAME.search(path) and (isfile(path) or not exists(path)))
        paths = sorted(path for path in images if not LEFT_OUT.search(path[len(root) :]))
    if not any(map(os.path.lexists, paths)):
        raise FileNotFoundError(f"there is no image in {places[0]}")
    for batch in (paths[i : i + about.batch] for i in range(0, len(paths), about.batch)):
        pictures = [decode(path, about) for path in batch]
        scored = zip(*session.run(None, {"images": np.stack([picture[0] for picture in pictures])})[1:], strict=True)
        for path, (_, size, error), (score, p, verdict, *heat) in zip(batch, pictures, scored, strict=True):
            row: dict[str, Any] = dict(path=path[len(root) :].decode(errors="backslashreplace"))
            if not error and np.isfinite(score):
                row |= dict(score=float(score), p_value=float(p), is_anomaly=bool(verdict), threshold=about.threshold)
                row["regions"] = regions(heat[0], size, about) if about.heat_peaks else None
            else:
                row["error"] = error or "its score is no finite number"
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print(f"error: {error}", file=sys.stderr)
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.stderr.write(str(__doc__)) and 2)
