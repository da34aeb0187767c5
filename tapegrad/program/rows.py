"""The arguments of a batch: which of their parts have rows, what these are, and how derivatives by them are put."""
from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .._integer import as_integer
from .containers import Container
from .form import NUMBER, PLAIN, Array, Form, Leaf, Nest, Series, Shaped, Static, as_array, differs, floats, is_array
from .recorded import Place
from .replay import Buffer, Feed, zeros

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

Axes = Any  # an integer, None, or a nest of them that is made up like the argument as far as it goes
Taken = list[tuple[Form, Any, str]]  # the parts of a container: form, what it is, how it is written


def plain(in_axes: Axes) -> Axes:
    """The same with a tuple for a list, and integers of Python for those that are not in containers of an argument."""
    if isinstance(in_axes, (tuple, list)):
        return tuple(plain(axes) if as_integer(axes) is not None else axes for axes in in_axes)
    k = as_integer(in_axes)
    return in_axes if k is None else k


def taken_apart(form: Form, x: Any, what: str) -> Taken | None:
    """A container that has this form; None where x is something else."""
    if isinstance(form, Series) and isinstance(x, (list, tuple)):
        if len(x) != len(form.parts):
            differs(x, form, what)
        return [(part, item, f"{what}[{k}]") for k, (part, item) in enumerate(zip(form.parts, x))]
    if isinstance(form, Container) and form.takes(x):
        return [(part, y, what + label) for part, y, label in zip(form.parts, form.open(x, what), form.labels())]
    return None


def axes_of(axes: Axes, form: Form, what: str) -> Iterator[int | None]:
    """All axes in a nest of them, which has to go with the form.

    Raises:
        TypeError, ValueError: it does not.
    """
    k = as_integer(axes)
    if axes is None or k is not None:
        yield k
    elif not isinstance(form, Static):
        parts = taken_apart(form, axes, what)
        if parts is None:
            raise TypeError(f"{what} must be integers and None, or made up like the argument, not {axes!r}")
        for part, inner, name in parts:
            yield from axes_of(inner, part, name)


class Piece:
    """A part of an argument that is mapped over one axis, or that all rows share."""

    def __init__(self, form: Form, first: int, axis: int | None) -> None:
        self.form, self.first, self.axis = form, first, axis
        self.size = form.size
        self.numbers: array[float] | NDArray[float64] = array("d")
        self.rows: int | None = None  # None: shared
        self.from_array = False
        self.came = form  # the form of one row, as it came

    def read(self, x: Nest, what: str) -> None:
        if self.axis is None:
            self.came = self._read_one(x, what)
        elif is_array(x) or getattr(x, "shape", None) == ():
            self._read_array(as_array(x, what), what)
        elif self.axis != 0:
            raise TypeError(f"{what} is mapped over axis {self.axis}: it must be an array, not {type(x).__name__!r}")
        elif isinstance(x, (list, tuple)):
            items = tuple(x)  # reading may run code that changes x
            self.rows = len(items)
            if self.form is NUMBER and set(map(type, items)) <= PLAIN:
                self.numbers = array("d", items)
            else:
                for k, item in enumerate(items):
                    came = self._read_one(item, f"{what}, row {k}")
                    self.came = came if k == 0 else self.came
        else:
            raise TypeError(f"{what} must be a list or an array of rows, not {type(x).__name__!r}")

    def _read_one(self, x: Nest, what: str) -> Form:
        assert isinstance(self.numbers, array)
        self.form.read(x, what, self.numbers)
        return self.form.like(x)

    def _read_array(self, x: NDArray[Any], what: str) -> None:
        import numpy

        axis = self.axis
        if axis is None or not -x.ndim <= axis < x.ndim:
            raise ValueError(f"{what} is an array of shape {x.shape}: it has no axis {axis}")
        rows = x if axis == 0 else numpy.moveaxis(x, axis, 0)
        if rows.shape[1:] != self.form.shape:
            raise ValueError(f"{what} has rows of shape {rows.shape[1:]}, but was recorded as {self.form}")
        self.numbers, self.rows, self.from_array = floats(rows, what).reshape(-1), len(rows), True
        self.came = Array(rows.shape[1:]) if x.ndim > 1 else NUMBER

    def feed(self) -> Feed:
        return Feed(self.first, self.size, self.numbers, self.stride)

    @property
    def stride(self) -> int:
        """Of its numbers, from row to row."""
        return 0 if self.rows is None else self.size

    def row(self, k: int) -> Buffer:
        return self.numbers[k * self.stride : k * self.stride + self.size]

    def shaped(self, flat: array[float], rows: int, reduced: bool, arrays: bool) -> Shaped:
        """Derivatives by it: one a row, as the rows came; by what all rows share, one, or stacked at each leaf."""
        if self.rows is None and reduced:
            return self.came.shaped(flat)
        if self.rows is None:
            return stacked(self.came, flat, rows, arrays, lists=True)
        if self.from_array:
            import numpy

            stack = _matrix(flat).reshape((rows, *(self.form.shape or ())))
            return numpy.moveaxis(stack, 0, self.axis) if self.axis else stack
        came = self.came
        return flat.tolist() if came is NUMBER else [came.shaped(flat, k * came.size) for k in range(rows)]

    def led(self, flats: Sequence[array[float]], lead: tuple[int, ...], rows: int, reduced: bool) -> Shaped:
        """Derivatives of an array of that shape: arrays of the rows, where there are any, that shape, and a leaf's.

        Rows of what is reduced stand where they stood in the argument.
        """
        import numpy

        summed = reduced and self.rows is None

        all_of_them = numpy.zeros((len(flats), 1 if summed else rows, self.size))
        for to, flat in zip(all_of_them, flats):
            to[:] = _matrix(flat).reshape(to.shape)

        def block(form: Form, at: int) -> Shaped:
            shape = form.shape or ()
            part = all_of_them[:, :, at : at + form.size]
            if summed:
                return part.reshape((*lead, *shape))
            axis = self.axis or 0
            to = 0 if not reduced else axis if axis < 0 else len(lead) + axis
            return numpy.moveaxis(part.reshape((*lead, rows, *shape)), len(lead), to)

        return self.came.map(block, lists=True)


def _matrix(flat: array[float]) -> NDArray[float64]:
    import numpy

    return numpy.frombuffer(flat, dtype=numpy.float64) if flat else numpy.zeros(0)


def stacked(form: Form, flat: array[float], rows: int, arrays: bool, lists: bool = False) -> Shaped:
    """A nest of this form with the rows stacked at each leaf: an array of them, or where there are none, a list."""
    width = form.size

    def leaf(part: Form, at: int) -> Shaped:
        if arrays or part.has_array:
            stack = _matrix(flat)
            if part.size != width:
                stack = stack.reshape((rows, width))[:, at : at + part.size]
            return stack.reshape((rows, *(part.shape or ())))
        if part is NUMBER:
            return flat[at::width].tolist()
        return [part.shaped(flat, at + k * width) for k in range(rows)]

    return form.map(leaf, lists=lists)


def one_row(pieces: Iterable[Piece], k: int) -> array[float]:
    """The inputs of a row, whose pieces these are."""
    flat = array("d")
    for piece in pieces:
        flat.extend(piece.row(k))
    return flat


class Argument:
    """One argument of a batch, that was read: its pieces, in the order of their numbers."""

    def __init__(self, place: Place, axes: Axes, x: Nest, what: str) -> None:
        self.place = place
        self.pieces: list[Piece] = []
        self.rows: int | None = None
        self.from_array = False
        self._close: Callable[[Iterator[Any]], Any] = self._read(place.form, place.first, axes, x, what)
        for piece in self.pieces:
            self.from_array |= piece.from_array
            if self.rows is None:
                self.rows = piece.rows
            elif piece.rows not in (self.rows, None):
                raise ValueError(f"{what} has parts of {self.rows} and of {piece.rows} rows")

    def _read(self, form: Form, first: int, axes: Axes, x: Nest, what: str) -> Callable[[Iterator[Any]], Any]:
        """Read what has this form into pieces; how nests like it are put together from what there is for each piece."""
        axis = as_integer(axes)
        one_axis = axes is None or axis is not None
        by_leaf = not one_axis or (axes is not None and isinstance(form, Container))
        parts = taken_apart(form, x, what) if by_leaf else None
        if parts is not None:
            inner = [axes] * len(parts)
            if not one_axis:
                inner = [part for _, part, _ in taken_apart(form, axes, "in_axes") or ()]
            return self._read_parts(form, first, inner, x, parts)
        if not one_axis and not isinstance(form, Static):
            differs(x, form, what)
        piece = Piece(form, first, None if isinstance(form, Static) else axis)
        piece.read(x, what)
        self.pieces.append(piece)
        return next

    def _read_parts(
        self, form: Form, first: int, all_axes: list[Axes], x: Nest, parts: Taken
    ) -> Callable[[Iterator[Any]], Any]:
        inner = []
        for axes, (part, y, name) in zip(all_axes, parts):
            inner.append(self._read(part, first, axes, y, name))
            first += part.size
        if isinstance(form, Container):
            close = form.closing(x)
        else:
            close = tuple if isinstance(x, tuple) else list
        return lambda found: close([one(found) for one in inner])

    def put(self, found: Sequence[Any]) -> Any:
        """What there is for each piece, as the argument came."""
        return self._close(iter(found))

    def map(self, leaf: Leaf) -> Any:
        """What leaf gives for each leaf of one row, as the argument came, called as `Form.map` calls it."""
        return self.put([piece.came.map(leaf, piece.first - self.place.first) for piece in self.pieces])


def in_rows(form: Form, x: Nest, rows: int, what: str) -> array[float]:
    """The numbers of a nest of this form with the rows stacked at each leaf, row after row."""
    argument = Argument(Place(form, 0), form.map(lambda *_: 0), x, what)
    if argument.rows not in (rows, None):
        raise ValueError(f"{what} has {argument.rows} rows, the arguments have {rows}")
    flat = zeros(rows * form.size)
    for piece in argument.pieces:
        for i in range(piece.size):
            flat[piece.first + i :: form.size] = array("d", piece.numbers[i :: piece.size])
    return flat
