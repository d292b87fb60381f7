"""The region of interest that was asked for: boxes as they are written, or an image file."""

from anomaly_ae.config.boxes import BOXES, boxes_of
from anomaly_ae.errors import DataDamaged, DataError, DataMissing, UsageError, one_line
from anomaly_ae.escaping import printable
from anomaly_ae.images.decode import Target, decode, read_file
from anomaly_ae.images.roi import RegionOfInterest
from anomaly_ae.storage.atomic import expand

WHITE_FROM = 128  # gray value


def read_roi(text: str) -> tuple[RegionOfInterest, tuple[int, int] | None]:
    """The region of interest as `RunConfig` has it: boxes, or an image file whose white it is, and the height and
    width of that.

    Raises `UsageError` for a file without white, `DataMissing`, `DataDamaged`.
    """
    if BOXES.fullmatch(text):
        return RegionOfInterest(tuple((x, y, width, height) for x, y, width, height in boxes_of(text))), None
    try:
        content = read_file(str(expand(text)))
        about = decode(content, Target((1, 1, 1)))
        (gray,) = decode(content, Target((1, about.height, about.width))).pixels
        if gray.max() < WHITE_FROM:
            raise UsageError(
                f"nothing in it is white, its brightest value is {gray.max()} of 255; what is to be looked at is "
                f"{WHITE_FROM} or more, and all else less, or transparent"
            )
        return RegionOfInterest.of_mask(gray >= WHITE_FROM), (about.height, about.width)
    except (FileNotFoundError, IsADirectoryError, ValueError) as error:  # or no name of a file
        raise DataMissing(
            f"there is no file {printable(text)} for the region of interest; name an image that is white where to "
            "look, or boxes x,y,w,h in shares of the picture, as in 0.25,0.1,0.5,0.8"
        ) from error
    except UsageError as error:
        raise UsageError(f"roi {text}: {error}") from error
    except (DataError, OSError) as error:
        raise DataDamaged(f"the region of interest {text} {one_line(error)}") from error
