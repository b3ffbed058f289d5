"""EXIF orientation of JPEG files: whether viewers turn or mirror the stored pixels."""

import struct

HEAD_BYTES = 4096  # of a file that are enough: the tag stands in the first directory
ORIENTATION = 0x0112  # number of the tag
TURNS = {
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "mirrored and turned by 180 degrees",
    5: "mirrored and turned by 90 degrees",
    6: "turned by 90 degrees",
    7: "mirrored and turned by 270 degrees",
    8: "turned by 270 degrees",
}  # how viewers show the stored pixels


def orientation(head: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1 (as stored) for any other file and without EXIF.

    Args:
        head: first `HEAD_BYTES` of the file.

    Source: EXIF 2.32, sections 4.5.4 and 4.6; TIFF 6.0, section 2.
    """
    try:
        return _orientation(head)
    except (struct.error, IndexError):
        return 1  # a cut or odd header: not a matter of orientation


def _orientation(head):
    if head[:2] != b"\xff\xd8":
        return 1
    place = 2
    while head[place] == 0xFF and head[place + 1] != 0xDA:  # segments before the pixels
        marker, length = struct.unpack_from(">BH", head, place + 1)
        if marker == 0xE1 and head[place + 4 : place + 10] == b"Exif\0\0":
            return _tag(head[place + 10 :])
        place += 2 + length
    return 1


def _tag(tiff):
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(count):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
        if tag == ORIENTATION:
            return value if value in TURNS else 1
    return 1
