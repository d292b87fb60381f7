"""Which files a manifest means: beside it, elsewhere, or at addresses of which there may be copies beside it."""

import os
import posixpath
import unicodedata
from collections.abc import Mapping
from urllib.parse import unquote

from anomaly_ae.datasets.manifest import at_line
from anomaly_ae.errors import DataMissing
from anomaly_ae.escaping import counted
from anomaly_ae.images.sources import FILE_SCHEME
from anomaly_ae.runtime.messages import logger


def find_names(references: Mapping[str, int], manifest: str) -> dict[str, bytes]:
    """What each reference in a manifest names, as `NamedFiles` has it.

    references: paths and addresses, each with the number of a line that it stands on
    manifest:   its own whole path or address
    Files at addresses are taken from beside the manifest where all of them are there, and it is said from where.
    Raises `DataError` where some of them are and others are not, or where one may be any of several files.
    """
    folder = manifest[: manifest.rindex("/") + 1]
    if "://" in manifest:
        wholes = {each: _beside_address(each, folder) for each in references}
    else:
        addresses = {each: line for each, line in references.items() if _is_address(each)}
        copies = _find_copies(addresses, folder) if addresses else {}
        wholes = {
            each: copies.get(each, each) if each in addresses else _on_disk(each, folder) for each in references
        }
    return {each: os.fsencode(whole.removeprefix(folder)) for each, whole in wholes.items()}


def _is_address(reference: str) -> bool:
    return "://" in reference and not reference.startswith(FILE_SCHEME)


def _beside_address(reference: str, folder: str) -> str:
    """The whole path or address that one in a manifest in a folder at an address means."""
    if _is_address(reference) or (path := reference.removeprefix(FILE_SCHEME)).startswith("/"):
        return reference.removeprefix(FILE_SCHEME)
    scheme, mark, place = folder.partition("://")
    return f"{scheme}{mark}{posixpath.normpath(place + path)}"


def _on_disk(reference: str, folder: str) -> str:
    """The whole path of the file that a reference means, by the first of the ways to write it that leads to one:
    as it stands, as an URL has it, as Windows writes it, or with letters composed as another system does.
    """
    path = reference.removeprefix(FILE_SCHEME)
    spellings = (
        path,
        path if path == reference else unquote(path),
        path.replace("\\", "/"),
        *(unicodedata.normalize(form, path) for form in ("NFC", "NFD")),
    )
    wholes = list(dict.fromkeys(_plain(each if each.startswith("/") else folder + each) for each in spellings))
    return next(filter(os.path.isfile, wholes), wholes[0])


def _plain(path: str) -> str:
    """A whole path without what says nothing in it, so that a file has one name."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _find_copies(addresses: Mapping[str, int], folder: str) -> dict[str, str]:
    """The files beside a manifest that are copies of those at some addresses, each with the line that it stands on:
    all of these or none.
    """
    found, owners = dict[str, str](), dict[str, str]()
    for address, line in addresses.items():
        copies = _copies(address, folder)
        if len(copies) > 1:
            may_be = " or ".join(path.removeprefix(folder) for path in copies[:2])
            raise at_line(line, f"names {address}, which may be {may_be}; leave one there, or write a path instead")
        for path in copies:
            found[address] = path
            if (other := owners.setdefault(path, address)) != address:
                where = f"beside the manifest both would be {path.removeprefix(folder)}"
                raise at_line(
                    line, f"names {address}, and line {addresses[other]:,} {other}; {where}; keep their folders apart"
                )
    example = next(iter(addresses))
    many = f"{counted(len(addresses), 'file')} at {'an address' if len(addresses) == 1 else 'addresses'}"
    if not found:
        logger.info(f"manifest: {many}, as {example}; fetched from there, for none lies beside it")
    elif absent := [address for address in addresses if address not in found]:
        raise DataMissing(
            f"of {many} some are beside it, {len(found):,}, and others are not, {len(absent):,}, the first on line "
            f"{addresses[absent[0]]:,}: {absent[0]}; put them there, too, or take their lines out"
        )
    else:
        taken = "is" if len(addresses) == 1 else "are"
        logger.info(
            f"manifest: {many} {taken} taken from beside it, {example} as {found[example].removeprefix(folder)}"
        )
    return found


def _copies(address: str, folder: str) -> list[str]:
    """The files that end as an address does, with whatever folders before, in the folder of a manifest or the one
    around it, where Lookout for Vision's manifests lie beside folders of images; each once.
    """
    parts = [part for part in address.partition("://")[2].split("/") if part]
    tails = ["/".join(parts[i:]) for i in range(len(parts))]
    paths = (f"{folder}{around}{tail}" for around in ("", "../") for tail in tails if not {".", ".."} & {*parts})
    files = {os.path.realpath(path): path for path in reversed([path for path in paths if os.path.isfile(path)])}
    return list(files.values())
