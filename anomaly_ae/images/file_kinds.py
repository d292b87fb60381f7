"""How a file is known to be an image, or what people take for one."""

import os

from anomaly_ae.images.decode import open_file
from anomaly_ae.images.folder_words import MAC_REMARKS

IMAGE_ENDINGS = tuple(
    b".png .jpg .jpeg .jpe .jfif .bmp .dib .gif .tif .tiff .webp .pbm .pgm .pnm .ppm .pfm".split()
)  # of image files, whatever they hold
UNREADABLE = {
    "HEIC": ".heic .heif .hif",
    "AVIF": ".avif .avifs",
    "JPEG XL": ".jxl",
    "JPEG 2000": ".jp2 .j2k .jpx .jpf",
    "camera raw": ".cr2 .cr3 .nef .dng .arw .raf .orf .rw2 .pef .srw .raw",
    "DICOM": ".dcm .dicom",
    "NIfTI": ".nii .nii.gz",
    "Photoshop": ".psd .psb",
    "SVG": ".svg .svgz",
    "OpenEXR": ".exr",
    "radiance": ".hdr",
    "TGA": ".tga",
    "NumPy": ".npy .npz",
    "PDF": ".pdf",
    "archive": ".zip .tar .tar.gz .tar.bz2 .tar.xz .tgz .7z .rar",
    "video": ".mp4 .m4v .avi .mov .mkv .webm .wmv .mpg .mpeg",
}  # what people take for pictures, by the endings of its files
HEAD = 16  # bytes by which a file without such an ending is told
STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
APPLE_DOUBLE = b"._"  # before a file's name: a Mac's remarks on it


def kinds() -> str:
    """The endings of image files, for people."""
    return b", ".join(sorted(IMAGE_ENDINGS)).decode()


def has_ending(path: bytes) -> bool:
    """Whether a file is called as images are."""
    return path.lower().endswith(IMAGE_ENDINGS)


def is_image(path: bytes) -> bool:
    """By its ending, or by its first bytes where that says nothing or misleads."""
    remark = os.path.basename(path).startswith(APPLE_DOUBLE)
    return has_ending(path) if has_ending(path) and not remark else starts_as_image(file_head(path, HEAD))


def starts_as_image(head: bytes | Exception) -> bool:
    """Whether the first bytes of a file, which may be none, are those of an image."""
    if isinstance(head, Exception):
        return False
    bitmap = head.startswith(b"BM") and head[6:10] == bytes(4)
    return head.startswith(STARTS) or bitmap or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def file_head(path: bytes, count: int) -> bytes:
    """The first bytes of a file, so many; nothing where it cannot be read."""
    try:
        with open_file(path) as file:
            return file.read(count) or b""
    except OSError:
        return b""


def unreadable(path: bytes) -> str | None:
    """What files are that people take for pictures and that are none here, by their ending."""
    name = os.path.basename(path)
    if name.startswith(b"."):
        return MAC_REMARKS if name.startswith(APPLE_DOUBLE) and has_ending(name) else None
    ends = os.fsdecode(name).lower()
    kind = next((kind for kind, endings in UNREADABLE.items() if ends.endswith(tuple(endings.split()))), None)
    if kind == "archive":
        return "archive files, which are not looked into; unpack them"
    how = "save frames as" if kind == "video" else "save as"
    return f"{kind} files, which cannot be read; {how} PNG or JPEG" if kind else None
