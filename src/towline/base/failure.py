"""What a failure is: whose fault, how the command line ends, and the root of the tree in `errors`."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Fault(Enum):
    """Whose fault a failure is; decides the tone of the sentence and who should act."""

    OURS = "ours"
    THEIRS = "theirs"
    WORLD = "the world's"


class Exit:
    """Exit statuses of `tow`. 64 to 78 and above 128 are left to the commands that `tow run` passes on."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    UNREACHABLE = 6
    VERIFICATION = 7
    NO_SPACE = 8
    PROTOCOL = 9
    LIMIT = 10
    LOST = 11
    INTERNAL = 12
    NOT_EXECUTABLE = 126
    NO_COMMAND = 127
    INTERRUPTED = 130


BY_CODE: dict[int, type[TowlineError]] = {}  # filled by the classes themselves


class TowlineError(Exception):
    """Something went wrong."""

    code: ClassVar[int] = 0
    name: ClassVar[str] = "error"
    exit_status: ClassVar[int] = Exit.FAILED
    fault: ClassVar[Fault] = Fault.WORLD
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail or self.default_sentence())
        self.retry_after = retry_after

    def __init_subclass__(
        cls,
        *,
        code: int,
        name: str,
        exit_status: int | None = None,
        fault: Fault | None = None,
        retryable: bool | None = None,
    ) -> None:
        """What a class leaves out it has from the one above."""
        super().__init_subclass__()
        if code in BY_CODE:
            raise AssertionError(f"error code {code} is taken by {BY_CODE[code].__name__}")
        BY_CODE[code] = cls
        cls.code, cls.name = code, name
        if exit_status is not None:
            cls.exit_status = exit_status
        if fault is not None:
            cls.fault = fault
        if retryable is not None:
            cls.retryable = retryable

    @classmethod
    def default_sentence(cls) -> str:
        """The docstring's first paragraph, on one line."""
        paragraph = (cls.__doc__ or "Something went wrong.").strip().split("\n\n")[0]
        return " ".join(paragraph.split())

    @property
    def sentence(self) -> str:
        """What a person reads."""
        return str(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code} {self.name}: {self.sentence}>"


def error_types() -> list[type[TowlineError]]:
    """All numbered errors in the order of their codes (for documentation and tests)."""
    return [BY_CODE[code] for code in sorted(BY_CODE)]
