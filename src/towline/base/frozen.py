"""Values that do not change: `@frozen` is to a class what `@dataclass(frozen=True, slots=True)` is, for less.

The standard decorator writes and compiles six methods while a module is imported, 0.5 ms for each class, and a short
command spent a fifth of its life on that. Here all methods are shared but `__init__`, which is written when the first
value is made; most classes that a command imports never see one. Making a value is quicker, too.

Checkers take these classes for frozen dataclasses. `__post_init__` is called; inheritance between them is not here. A
class that changes is a plain `@dataclass(slots=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar, cast, dataclass_transform, overload

C = TypeVar("C", bound=type)
T = TypeVar("T")


class _Made:
    """A default that is made anew for each value."""

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


def made(*, factory: Callable[[], T]) -> T:
    """The default of a field of which each value has its own: `tags: list[str] = made(factory=list)`."""
    return cast("T", _Made(factory))


@overload
def frozen(cls: C, /) -> C: ...
@overload
def frozen(*, kw_only: bool) -> Callable[[C], C]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(made,))
def frozen(cls: C | None = None, /, *, kw_only: bool = False) -> C | Callable[[C], C]:
    """The class with its annotated fields in slots; equal, hashable and shown by them.

    `kw_only`: they are given by name only. What the class itself defines stays.
    """
    if cls is None:
        return lambda cls: _frozen(cls, kw_only)
    return _frozen(cls, kw_only)


def fields(value: object) -> tuple[str, ...]:
    """The names of the fields of a frozen class, or of one of its values."""
    return cast("tuple[str, ...]", value.__match_args__)  # type: ignore[attr-defined]


def as_dict(value: object) -> dict[str, Any]:
    """Fields and their values; those that are frozen values themselves are left as they are."""
    return {name: getattr(value, name) for name in fields(value)}


def replace(value: T, /, **changes: Any) -> T:
    """The same value but for `changes`. Raises TypeError for a name that is no field."""
    return type(value)(**(as_dict(value) | changes))


# --- inside ---


def _frozen(cls: C, kw_only: bool) -> C:
    body = {name: value for name, value in vars(cls).items() if name not in {"__dict__", "__weakref__"}}
    kinds = body.get("__annotations__", {})
    names = tuple(name for name, kind in kinds.items() if not kind.startswith("ClassVar"))
    defaults = {name: body.pop(name) for name in names if name in body}
    for name, value in defaults.items():
        if value.__class__.__hash__ is None:
            raise TypeError(f"{cls.__qualname__}.{name}: values would share it; use made(factory=…)")

    def write_init(self: object, *args: object, **kwargs: object) -> None:
        fresh.__init__ = _init(fresh, defaults, kw_only)
        fresh.__init__(self, *args, **kwargs)

    shared = {
        "__qualname__": cls.__qualname__,
        "__slots__": names,
        "__match_args__": names,
        "__init__": write_init,
        "__eq__": _equal,
        "__hash__": _hash,
        "__repr__": _repr,
        "__setattr__": _refuse,
        "__delattr__": _refuse,
        "__getstate__": as_dict,
        "__setstate__": _set_state,
        "_values": attrgetter(*names) if names else type,
    }
    # Slots can only be given to a class while it is made, so it is made once more.
    fresh: Any = type(cls)(cls.__name__, cls.__bases__, shared | body)
    return cast("C", fresh)


def _init(cls: Any, defaults: dict[str, object], kw_only: bool) -> Callable[..., None]:
    """`__init__` that fills the slots by their descriptors, past `__setattr__`."""
    names = fields(cls)
    known: dict[str, Any] = {f"set_{name}": getattr(cls, name).__set__ for name in names}
    known |= {f"default_{name}": value for name, value in defaults.items()}
    parameters = [f"{name}=default_{name}" if name in defaults else name for name in names]
    lines = [f" set_{name}(self, {_source(name, defaults.get(name))})" for name in names]
    if "__post_init__" in vars(cls):
        lines.append(" self.__post_init__()")
    heading = ", ".join(["self", *(["*"] if kw_only else []), *parameters])
    exec(f"def __init__({heading}):\n" + "\n".join(lines or [" pass"]), known)  # noqa: S102  (names of our own fields)
    init = known["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return cast("Callable[..., None]", init)


def _source(name: str, default: object) -> str:
    return f"{name}.make() if {name} is default_{name} else {name}" if isinstance(default, _Made) else name


def _equal(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self._values(self) == self._values(other)


def _hash(self: Any) -> int:
    return hash(self._values(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in as_dict(self).items())
    return f"{type(self).__qualname__}({shown})"


def _refuse(self: object, name: str, *_: object) -> None:
    raise AttributeError(f"{type(self).__qualname__} does not change; {name!r} cannot be set or deleted")


def _set_state(self: Any, state: dict[str, object]) -> None:
    for name, value in state.items():
        object.__setattr__(self, name, value)
