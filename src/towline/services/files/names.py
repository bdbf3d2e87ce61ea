"""The names that may appear in a transfer. Pure: a name is judged, never rewritten.

Undecodable bytes travel as lone surrogates (`surrogateescape`, PEP 383). What a portable name is: Microsoft,
"Naming Files, Paths, and Namespaces"; a name that Windows would swallow reports success there and holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from towline.base.errors import PathRefused
from towline.base.limits import KIB, Limit
from towline.base.text import printable

RESERVED = ".towline-"
NAME_BYTES = Limit("name_bytes", 255, "bytes", "no file system in use takes a longer name (NAME_MAX)")
PATH_BYTES = Limit("path_bytes", 32 * KIB, "bytes", "a path is repeated for every file below it; 1,000 levels fit")

_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"]
)
_DEVICE_START = frozenset("cpanlCPANL")
_UNPORTABLE = re.compile(r'[<>:"|?*\\]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNDECODABLE = re.compile(r"[\udc80-\udcff]")
# The everyday name, accepted by one look. Whatever is not in here takes the slow way, it is not refused.
_EVERYDAY = re.compile(r"(?:[A-Za-z0-9_\-+=,@#%~]|[. ](?=[^. ])){1,200}")
# The same for the components of many paths at once, joined by slashes: no leading dot, no device.
_EVERYDAY_PATHS = re.compile(
    r"(?:(?!\.|(?i:con|prn|aux|nul|(?:com|lpt)[0-9]) *(?:[./]|\Z))"
    r"(?:[A-Za-z0-9_\-+=,@#%~]|[. ](?=[^. /])){1,200}+(?:/(?=.)|\Z))++"
)
_PARTIAL = re.compile(r"\.towline-[0-9a-z]{8,40}\.(?:part|ranges|tmp)")
_ANY_NAMES = "it is not safe on every system; --any-names lets it through"


def check_component(name: str, *, portable: bool) -> None:
    """Raise PathRefused, naming the component and why, unless `name` may name a file or folder.

    Always refused: empty, `.`, `..`, `/` or NUL inside, more than 255 bytes, Towline's own `.towline-…`, and text
    that is no file name at all (surrogates that stand for no byte). With `portable`, what some system cannot keep.
    """
    if _EVERYDAY.fullmatch(name) and name[0] != "." and (name[0] not in _DEVICE_START or not _is_device(name)):
        return
    why = _why_never(name) or (_why_unportable(name) if portable else "")
    if why:
        raise PathRefused(f"The name {quoted(name)} is refused: {why}.")


def are_everyday(paths: Iterable[str]) -> bool:
    """Whether all components of these paths are certainly allowed. False says only that it takes a closer look."""
    return _EVERYDAY_PATHS.fullmatch("/".join(paths)) is not None


def split_path(path: str, *, portable: bool) -> list[str]:
    """The checked components of a relative path; none for the root itself (`""` or `"."`).

    A trailing slash is allowed. An absolute path, `..`, `.` between components and `a//b` are refused, never
    rewritten. Raises PathRefused.
    """
    if path in ("", "."):
        return []
    if path.startswith("/"):
        raise PathRefused(f"The path {quoted(path)} is refused: it is absolute; paths start at the share's root.")
    if len(path.encode("utf-8", "surrogatepass")) > PATH_BYTES.value:
        raise PathRefused(f"The path {quoted(path)} is refused: it is longer than {PATH_BYTES.value} bytes.")
    parts = path.removesuffix("/").split("/")
    for part in parts:
        check_component(part, portable=portable)
    return parts


def sort_key(name: str) -> bytes:
    """What names are ordered by everywhere: their bytes, whatever the locale."""
    return name.encode("utf-8", "surrogateescape")


def sorted_names(names: list[str]) -> list[str]:
    """`names` in the order of their bytes."""
    # For ASCII the order of code points is the order of bytes, without a key per name.
    return sorted(names) if "".join(names).isascii() else sorted(names, key=sort_key)


def is_reserved(name: str) -> bool:
    """Whether `name` belongs to Towline's unfinished files (in any case: some file systems fold it)."""
    return name[:1] == "." and name[: len(RESERVED)].lower() == RESERVED


def is_partial(name: str) -> bool:
    """Whether `name` is one of the unfinished files that this version makes."""
    return _PARTIAL.fullmatch(name) is not None


def quoted(name: str) -> str:
    """A peer's name, fit for a sentence."""
    return f'"{printable(name, limit=200)}"'


def _why_never(name: str) -> str:
    if not name:
        return "it is empty"
    if name in (".", ".."):
        return "it would leave its folder" if name == ".." else "it names no entry"
    if "/" in name or "\0" in name:
        return "it contains a slash or a NUL byte"
    if is_reserved(name):
        return f"names that start with {RESERVED} are Towline's own unfinished files"
    try:
        length = len(sort_key(name))
    except UnicodeEncodeError:
        return "it is not text that a file name can hold"
    return f"it is longer than {NAME_BYTES.value} bytes" if length > NAME_BYTES.value else ""


def _why_unportable(name: str) -> str:
    if _CONTROL.search(name):
        return f"it contains a control character; {_ANY_NAMES}"
    if _UNDECODABLE.search(name):
        return f"it contains bytes that are not UTF-8; {_ANY_NAMES}"
    if found := _UNPORTABLE.search(name):
        return f"it contains {found.group()}; {_ANY_NAMES}"
    if name[-1] in ". ":
        return f"it ends in a {'dot' if name[-1] == '.' else 'space'}; {_ANY_NAMES}"
    if _is_device(name):
        return f"it is a device on Windows; {_ANY_NAMES}"
    return ""


def _is_device(name: str) -> bool:
    return name.partition(".")[0].rstrip(" ").lower() in _DEVICES
