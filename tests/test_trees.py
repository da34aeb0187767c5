"""What arguments and results may be: trees of containers, by position and by name, with what is no number in them."""
from __future__ import annotations

import collections
import copy
import dataclasses
import itertools
import math
import pickle
import sys
import types
from array import array
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tapegrad
from tapegrad import Value, record
from tapegrad.program import Program
from tapegrad.program.file import encode
from tapegrad.program.form import objects
from tapegrad.program.nest import form_of
from tapegrad.program.recorded import decoded


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass(frozen=True)
class Layer:
    w: Any
    b: Any
    activation: Any = "tanh"

    def __post_init__(self):
        if isinstance(self.b, float) and self.b < 0:
            raise ValueError("a gradient is no Layer")


@pytest.fixture
def reloaded(tmp_path):
    def reload(program):
        program.save(tmp_path / "program")
        return tapegrad.load(tmp_path / "program")

    return reload


# ---- any tree ----

STATICS = st.none() | st.text(max_size=3)
NUMBERS = st.floats(-9, 9, width=16)


def containers(parts):
    return (
        st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2) | st.integers(-9, 9), parts, max_size=3)
        | st.builds(Point, parts, parts)
        | st.builds(lambda w, b, a: Layer([w], b if b is None else [b], a), parts, parts, STATICS)
        | st.builds(lambda a, b: types.SimpleNamespace(a=a, b=b), parts, parts)
    )


TREES = st.recursive(NUMBERS | STATICS, containers, max_leaves=12)


def leaves(x):
    """The numbers of a tree, in order."""
    if isinstance(x, dict):
        x = list(x.values())
    elif not isinstance(x, tuple) and (hasattr(x, "__dataclass_fields__") or isinstance(x, types.SimpleNamespace)):
        x = list(vars(x).values())
    if isinstance(x, (list, tuple)):
        return [leaf for part in x for leaf in leaves(part)]
    return [x] if isinstance(x, (float, Value)) else []


def plain(x):
    """A tree with classes taken for what a file holds of them."""
    if isinstance(x, dict):
        return {key: plain(part) for key, part in x.items()}
    if hasattr(x, "_fields"):
        return "tuple", {name: plain(getattr(x, name)) for name in x._fields}
    if hasattr(x, "__dataclass_fields__") or isinstance(x, types.SimpleNamespace):
        return "record", {name: plain(part) for name, part in vars(x).items()}
    return type(x)(map(plain, x)) if isinstance(x, (list, tuple)) else x


@given(TREES)
@settings(deadline=None)
def test_a_tree_comes_apart_and_together(tree):
    form = form_of(tree, "it")
    flat = array("d")
    form.read(tree, "it", flat)
    assert flat.tolist() == form.elements(tree) == leaves(tree)
    assert form.size == len(flat) == len(list(form.names("it")))
    assert form.shaped(flat) == tree and form.build(iter(flat), objects) == tree
    assert form.like(tree) == form and form.like(tree).shaped(flat) == tree
    again = pickle.loads(pickle.dumps(form))
    assert again == form == copy.deepcopy(form) and hash(again) == hash(form)


@given(TREES.filter(leaves))
@settings(deadline=None)
def test_a_tree_is_argument_result_and_gradient(tree):
    program = record(lambda x: [x, sum(v * v for v in leaves(x))], tree)
    other, total = program(tree)
    assert other == tree and total == sum(v * v for v in leaves(tree))
    loss = record(lambda x: sum(v * v for v in leaves(x)) + 0.0, tree)
    gradient = loss.grad(tree)
    assert type(gradient) is type(tree) and leaves(gradient) == [2 * v for v in leaves(tree)]
    again = Program(decoded(encode(program._recorded.contents())))
    assert plain(again(tree)) == plain([tree, total])
    assert again(again(tree)[0]) == again(tree)


@given(TREES)
@settings(deadline=None)
def test_names_are_as_in_python(tree):
    form = form_of(tree, "tree")
    assert [eval(name, {"tree": tree}) for name in form.names("tree")] == leaves(tree)


# ---- kinds ----


def test_a_dict_has_its_keys_in_any_order():
    program = record(lambda p: p["a"] - 2 * p["b"][0], {"a": 1.0, "b": [2.0]})
    assert program({"b": [1.0], "a": 5.0}) == 3.0
    assert program.grad({"b": [1.0], "a": 5.0}) == {"a": 1.0, "b": [-2.0]}
    with pytest.raises(ValueError, match=r"argument p has no key 'b', but was recorded with it"):
        program({"a": 1.0})
    with pytest.raises(ValueError, match=r"argument p has the key 3, but was recorded without it"):
        program({"a": 1.0, "b": [1.0], 3: 1.0})
    with pytest.raises(TypeError, match=r"argument p is 'list' of 2, but was recorded as a dict of \['a', 'b'\]"):
        program([1.0, 2.0])
    with pytest.raises(ValueError, match=r"argument p\['b'\] is 'list' of 2, but was recorded as a list of 1"):
        program({"a": 1.0, "b": [1.0, 2.0]})
    with pytest.raises(TypeError, match=r"argument p\['b'\]\[0\] must be a number, not 'str'"):
        program({"a": 1.0, "b": ["x"]})
    with pytest.raises(TypeError, match=r"argument p\['a'\] must be a number, not 'NoneType'"):
        program({"a": None, "b": [1.0]})


def test_a_dict_of_another_class_is_a_dict():
    counted = collections.Counter("aab")
    assert record(lambda c: c["a"] * c["b"], counted).grad(counted) == {"a": 1.0, "b": 2.0}


def test_f_gets_containers_of_its_own_kinds():
    def f(point, layer):
        assert type(point) is Point and type(layer) is Layer and layer.activation == "tanh"
        return Point(layer.w[0] * point.x + layer.b * point.y, layer)

    program = record(f, Point(1.0, 2.0), Layer([3.0], 4.0))
    got = program(Point(2.0, 2.0), Layer([3.0], 4.0))
    assert got == Point(14.0, Layer([3.0], 4.0)) and type(got) is Point and type(got.y) is Layer


def test_a_dataclass_is_made_without_its_checks():
    """A gradient need not be what the class allows."""
    program = record(lambda layer: -layer.b * layer.b, Layer([], 3.0))
    gradient = program.grad(Layer([], 3.0))
    assert type(gradient) is Layer and gradient.b == -6.0


def test_fields_have_to_be_those_that_were_recorded():
    program = record(lambda p: p.x * p.y, Point(1.0, 2.0))
    assert program(types.SimpleNamespace(y=3.0, x=2.0)) == 6.0
    assert program.grad(types.SimpleNamespace(y=3.0, x=2.0)) == types.SimpleNamespace(y=2.0, x=3.0)
    with pytest.raises(ValueError, match="argument p has no field 'y', but was recorded with it"):
        program(types.SimpleNamespace(x=2.0))
    with pytest.raises(ValueError, match="argument p has the field 'z', but was recorded without it"):
        program(types.SimpleNamespace(x=2.0, y=2.0, z=2.0))
    with pytest.raises(TypeError, match="argument p is 'float', but was recorded as a Point of"):
        program(2.0)
    with pytest.raises(TypeError, match=r"argument p.y must be a number"):
        program(Point(1.0, "a"))


def test_pandas_are_arrays(np):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3, 4]})
    series = pandas.Series([1.0, 2.0], index=["u", "v"])
    program = record(lambda m, v: (m * m).sum() * v[0] + v[1], frame, series)
    value, (by_frame, by_series) = program.value_and_grad(frame, series, argnums=(0, 1))
    assert value == 32.0 and type(by_frame) is type(by_series) is np.ndarray
    assert by_frame.tolist() == [[2.0, 6.0], [4.0, 8.0]] and by_series.tolist() == [30.0, 1.0]
    assert program(frame.to_numpy(), [1.0, 2.0]) == 32.0
    assert record(lambda v: pandas.Series([v * v, 1.0]), 2.0)(3.0).tolist() == [9.0, 1.0]
    batch = record(lambda v: v[0] * v[1], [1.0, 1.0]).map()
    assert batch(frame).tolist() == [3.0, 8.0]
    assert tapegrad.grad(lambda v: v[0] ** 2 * v[1])(series).tolist() == [4.0, 1.0]
    assert tapegrad.hessian(lambda v: v[0] ** 2 * v[1])(series).tolist() == [[4.0, 2.0], [2.0, 0.0]]


def test_masked_elements_are_no_numbers(np):
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    program = record(lambda v: v[0] * v[1], [1.0, 1.0])
    assert program(np.ma.array([3.0, 2.0])) == 6.0 and program(masked.filled(5.0)) == 5.0
    for call in (
        lambda: program(masked),
        lambda: program.hessian(masked),
        lambda: program.map()(np.ma.array([masked, masked])),
        lambda: record(lambda v: v[0], masked),
        lambda: tapegrad.grad(lambda v: v[0])(masked),
        lambda: program([1.0, masked[1]]),
        lambda: record(lambda v: v * 2.0, 1.0)(masked[1]),
    ):
        with pytest.raises(ValueError, match=r"array with masked elements.*filled"):
            call()
    with pytest.raises(TypeError, match="'MaskedConstant'"):
        tapegrad.leaves(masked)
    assert tapegrad.data(tapegrad.leaves(np.ma.array([1.0, 2.0]))) == [1.0, 2.0]


def test_what_optree_knows_is_taken_apart():
    optree = pytest.importorskip("optree")

    class Pair:
        def __init__(self, a, b, name):
            self.a, self.b, self.name = a, b, name

    optree.register_pytree_node(
        Pair, lambda p: ((p.a, p.b), p.name, ("a", "b")), lambda name, ab: Pair(*ab, name),
        namespace=optree.registry.__GLOBAL_NAMESPACE,
    )  # fmt: skip
    program = record(lambda p: p.a * p.b[0], Pair(1.0, [2.0], "one"))
    gradient = program.grad(Pair(3.0, [4.0], "one"))
    assert (type(gradient), gradient.a, gradient.b, gradient.name) == (Pair, 4.0, [3.0], "one")
    with pytest.raises(ValueError, match=r"argument p is a Pair of .*, but was recorded as a Pair"):
        program(Pair(3.0, [4.0], "two"))
    with pytest.raises(TypeError, match=r"argument p\['b'\]\[0\] must be a number"):
        program(Pair(3.0, [None], "one"))
    ordered = record(lambda d: d["b"] * d["a"][0], collections.OrderedDict(b=1.0, a=collections.deque([2.0])))
    got = ordered.grad(collections.OrderedDict(b=3.0, a=collections.deque([5.0])))
    assert got == collections.OrderedDict(b=5.0, a=collections.deque([3.0])) and type(got) is collections.OrderedDict
    with pytest.raises(TypeError, match="argument d is 'dict'"):
        ordered({"b": 1.0, "a": [2.0]})


def test_a_container_that_takes_optree_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "optree", None)
    says = r"example d\['a'\] is 'deque', which takes optree: pip install 'tapegrad\[trees\]'"
    with pytest.raises(TypeError, match=says):
        record(lambda d: d["a"][0] * 2, {"a": collections.deque([1.0])})


# ---- what is no number ----


def double(x):
    return x * 2


def test_what_is_no_number_is_part_of_what_was_recorded():
    good, weird = {"f": double, "none": None, "o": object()}, types.SimpleNamespace()
    program = record(lambda x, how, options: options["f"](x) if how == "f" else x, 2.0, "f", good)
    assert program(3.0, "f", good) == 6.0
    assert program(3.0, "".join(("f", "")), good) == 6.0  # equal is enough
    with pytest.raises(ValueError, match=r"argument how is 'g', but was recorded as 'f'"):
        program(3.0, "g", good)
    with pytest.raises(ValueError, match=r"argument how is 1.0, but was recorded as 'f'"):
        program(3.0, 1.0, good)
    with pytest.raises(ValueError, match=r"argument options\['o'\] is <object .*, but was recorded as <object"):
        program(3.0, "f", {**good, "o": object()})
    with pytest.raises(ValueError, match=r"argument options\['none'\] is namespace\(\), but was recorded as None"):
        program(3.0, "f", {**good, "none": weird})
    with pytest.raises(ValueError, match=r"argument options\['f'\] is .*, but was recorded as <function double"):
        program(3.0, "f", {**good, "f": math.sqrt})


def test_what_cannot_be_compared_is_another():
    class Odd:
        def __eq__(self, other):
            raise RuntimeError("no")

        __hash__ = None

    odd = Odd()
    program = record(lambda x, odd: x * 2, 1.0, odd)
    assert program(2.0, odd) == 4.0
    with pytest.raises(ValueError, match="argument odd is"):
        program(2.0, Odd())


def test_a_gradient_has_what_is_no_number_too_but_is_not_by_it():
    program = record(lambda x, how: x["a"] ** 2, {"a": 1.0, "name": "n"}, "f")
    assert program.grad({"a": 3.0, "name": "n"}, "f") == {"a": 6.0, "name": "n"}
    with pytest.raises(TypeError, match="argument how was recorded as 'f': there is no derivative by"):
        program.grad({"a": 3.0, "name": "n"}, "f", argnums=1)


def test_constants_and_what_is_no_number_may_be_results():
    program = record(lambda x: [x * x, 1.0, {"n": None, "how": "so", "two": 2}], 3.0)
    assert program(4.0) == [16.0, 1.0, {"n": None, "how": "so", "two": 2.0}]
    assert program.jacobian(4.0) == [8.0, 0.0, {"n": None, "how": "so", "two": 0.0}]
    assert record(lambda x: 7, 1.0).value_and_grad(3.0) == (7.0, 0.0)


def test_an_array_of_results_may_hold_numbers(np):
    assert record(lambda x: np.array([x[0], 2.0, x[1] * 2]), np.ones(2))(np.array([3.0, 4.0])).tolist() == [3, 2, 8]


# ---- by name ----


def test_arguments_go_by_position_or_by_name():
    program = record(lambda x, y, z=1.0: x * y - z, 1.0, y=2.0)
    assert program(3.0, 4.0) == program(3.0, y=4.0) == program(y=4.0, x=3.0) == 11.0
    assert program.grad(x=3.0, y=4.0, argnums=(1, 0)) == (3.0, 4.0)
    assert program.vjp(3.0, y=4.0)[1](1.0) == (4.0, 3.0)
    assert program.hvp(3.0, 1.0, y=4.0) == 0.0 and program.hessian(y=4.0, x=3.0) == 0.0
    assert program.jacobian(3.0, y=4.0) == 4.0
    batch = program.map()
    assert batch([1.0, 2.0], y=[3.0, 4.0]) == [2.0, 7.0]
    assert batch.grad(x=[1.0, 2.0], y=[3.0, 4.0], argnums=1) == [1.0, 2.0]


def test_arguments_by_name_alone_reach_f_by_name():
    calls = []

    def f(x, *, scale, **rest):
        calls.append(sorted(rest))
        return x * scale + rest["shift"] if x > 0 else x

    program = record(f, 1.0, shift=3.0, scale=2.0, on_branch="record")
    assert program(2.0, scale=5.0, shift=1.0) == 11.0 and program(-2.0, shift=1.0, scale=5.0) == -2.0
    assert calls == [["shift"], ["shift"]]
    assert program._recorded.forms.names == ("x", "shift", "scale") and program._recorded.forms.by_name == 2


def test_wrong_names_are_named():
    program = record(lambda x, y: x * y, 1.0, 2.0)
    with pytest.raises(TypeError, match="takes no argument 'z'; it takes x, y"):
        program(1.0, z=2.0)
    with pytest.raises(TypeError, match="argument x is given by position and by name"):
        program(1.0, x=2.0)
    with pytest.raises(TypeError, match="takes 2 arguments, not 1"):
        program(x=2.0)
    with pytest.raises(TypeError, match="takes no argument 'x'; it takes one by position"):
        record(lambda *xs: xs[0] * 2, 1.0)(x=1.0)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        record(lambda x, y: x * y, 1.0)


def test_arguments_without_names_are_named_by_number():
    with pytest.raises(TypeError, match=r"argument 1\['w'\] must be a number, not 'str'"):
        record(lambda *xs: xs[1]["w"] * 2, 1.0, {"w": 2.0})(1.0, {"w": "x"})
    with pytest.raises(TypeError, match=r"argument 0 must be a number"):
        record(lambda x, /: x * 2, 1.0)("x")


def test_names_are_saved(reloaded):
    program = record(lambda x, *, how, w: x * w if how == "mul" else x, 1.0, how="mul", w=3.0)
    again = reloaded(program)
    assert again(2.0, w=4.0, how="mul") == 8.0
    with pytest.raises(ValueError, match="argument how is 'add', but was recorded as 'mul'"):
        again(2.0, w=4.0, how="add")


def test_argnums_may_name_arguments_and_params_together():
    w = Value(3.0)
    program = record(lambda x, y: x * y * w, 1.0, 2.0, params=[w])
    assert program.grad(1.0, 2.0, argnums=(0, "params", -1)) == (6.0, [2.0], 3.0)
    assert program.hessian(1.0, 2.0, argnums=(0, "params")) == ((0.0, [2.0]), ([2.0], [[0.0]]))


# ---- gradients as the argument came ----


def test_a_gradient_is_of_the_argument_s_type_as_it_came(np):
    by_list = record(lambda x: x[0] ** 2 * x[1], [1.0, 2.0])
    by_array = record(lambda x: x[0] ** 2 * x[1], np.ones(2))
    for program in (by_list, by_array):
        for x, kind in (([3.0, 5.0], list), ((3.0, 5.0), tuple), (np.array([3.0, 5.0]), np.ndarray)):
            assert type(program(x)) is float
            pairs = [
                (program.value_and_grad(x)[1], [30.0, 9.0]), (program.grad(x), [30.0, 9.0]),
                (program.jacobian(x), [30.0, 9.0]), (program.vjp(x)[1](1.0)[0], [30.0, 9.0]),
                (program.hvp(x, [1.0, 0.0]), [10.0, 6.0]),
            ]  # fmt: skip
            for got, expected in pairs:
                assert type(got) is kind and list(got) == expected
            hessian = program.hessian(x)
            assert type(hessian) is kind and [list(row) for row in hessian] == [[10.0, 6.0], [6.0, 0.0]]


def test_parts_come_as_they_came(np):
    program = record(lambda m: m["a"][0][1] * m["b"][1, 0], {"a": [[1.0, 2.0]], "b": np.ones((2, 2))})
    gradient = program.grad({"a": np.array([[1.0, 2.0]]), "b": [[1.0, 2.0], (3.0, 4.0)]})
    assert gradient["a"].tolist() == [[0.0, 3.0]] and gradient["b"] == [[0.0, 0.0], (2.0, 0.0)]


def test_scipy_minimises_by_any_method_what_was_recorded_by_a_list():
    optimize = pytest.importorskip("scipy.optimize")
    program = record(lambda x: (x[0] - 1) ** 2 * 2 + (x[1] + 2) ** 2 + x[0] * x[1] * 0.5, [0.0, 0.0])
    by_hvp, by_hessian = {"hessp": program.hvp}, {"hess": program.hessian}
    for method, second in (("trust-ncg", by_hvp), ("Newton-CG", by_hvp), ("BFGS", {}), ("trust-exact", by_hessian)):
        found = optimize.minimize(program.value_and_grad, [0.0, 0.0], jac=True, method=method, **second)
        assert found.success and abs(program.grad(list(found.x))[0]) < 1e-4


# ---- derivatives of trees ----


def test_a_hessian_by_several_arguments_is_a_tuple_of_tuples_of_blocks(np):
    program = record(lambda x, y: (x * x).sum() * y["a"] ** 2, np.ones(2), {"a": 1.0})
    (xx, xy), (yx, yy) = program.hessian(np.array([1.0, 2.0]), {"a": 3.0}, argnums=(0, 1))
    assert xx.tolist() == [[18.0, 0.0], [0.0, 18.0]] and xy["a"].tolist() == [12.0, 24.0]
    assert yx["a"].tolist() == [12.0, 24.0] and yy == {"a": {"a": 10.0}}


def test_a_jacobian_of_a_tree_by_a_tree(np):
    example = {"w": np.ones((2, 3)), "x": np.ones(3), "b": 2.0}
    program = record(lambda p: {"y": p["w"] @ p["x"], "s": p["b"] ** 2}, example)
    w, x = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 4.0])
    jacobian = program.jacobian({"w": w, "x": x, "b": 3.0})
    assert jacobian["y"]["w"].tolist() == [[x.tolist(), [0.0] * 3], [[0.0] * 3, x.tolist()]]
    assert jacobian["y"]["x"].tolist() == w.tolist() and jacobian["y"]["b"].tolist() == [0.0, 0.0]
    assert jacobian["s"]["b"] == 6.0 and jacobian["s"]["w"].tolist() == [[0.0] * 3] * 2


def test_a_listing_says_which_inputs_are_which(np):
    w = Value(2.0)
    program = record(lambda p, x: (p["a"] * x).sum() * p["b"] + w, {"a": np.ones(3), "b": 1.0}, np.ones(3), params=[w])
    first = str(program).splitlines()[0]
    assert first == "8 inputs (p['a'] in0..in2, p['b'] in3, x in4..in6, params in7..in7), 0 constants, 3 instructions"
    many = record(lambda x: x["0"] * 2, {str(k): 1.0 for k in range(20)})
    assert "x['7'] in7, ...), " in str(many).splitlines()[0]


# ---- saved ----


def test_what_can_not_be_saved_is_named(tmp_path):
    for argument, says in (
        ({"f": double}, r"argument x\['f'\] is <function double.*: a program that is saved can hold"),
        ({2.5: 1.0}, r"a key of argument x is 2.5"),
        ([1.0, {"a": Point(object(), 1.0)}], r"argument x\[1\]\['a'\].x is <object"),
        (collections.namedtuple("P", "a class", rename=True)(1.0, 2.0), r"argument x has the field '_1'"),
        (types.SimpleNamespace(__x=1.0), r"argument x has the field '__x': it cannot be saved"),
    ):
        program = record(lambda x, y: y * 2, argument, 1.0)
        with pytest.raises(ValueError, match=says):
            program.save(tmp_path / "p")
    with pytest.raises(ValueError, match=r"the result\[1\] is <function double"):
        record(lambda x: [x * 2, double], 1.0).save(tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_a_container_that_optree_knows_is_not_saved(tmp_path):
    pytest.importorskip("optree")
    with pytest.raises(ValueError, match=r"argument x is a deque of \[0\], which optree knows: it cannot be saved"):
        record(lambda x: x[0] * 2, collections.deque([1.0])).save(tmp_path / "p")


def test_a_loaded_program_has_named_tuples_and_namespaces(reloaded):
    program = record(lambda p, q: Point(Layer(p.x * q.w[0], q.b), 1.0), Point(1.0, 2.0), Layer([3.0], 4.0))
    again = reloaded(program)
    got = again(Point(2.0, 2.0), Layer([3.0], 4.0))
    assert type(got).__name__ == "Point" and got._fields == ("x", "y") and type(got) is not Point
    assert got.x == types.SimpleNamespace(w=6.0, b=4.0, activation="tanh")
    assert again(types.SimpleNamespace(x=2.0, y=2.0), Layer([3.0], 4.0)) == got
    with pytest.raises(ValueError, match=r"argument q\.activation is 'relu', but was recorded as 'tanh'"):
        again(Point(1.0, 2.0), Layer([3.0], 4.0, "relu"))


def test_every_rotation_of_kinds_is_read_back(reloaded):
    parts = [1.0, [2.0], (3.0,), {"k": 4.0, 7: 5.0, None: 6.0}, Point(7.0, "s"), None, -(1 << 40)]
    for k in range(len(parts)):
        tree = {"tree": list(itertools.chain(parts[k:], parts[:k]))}
        program = record(lambda t: [t, 1.0], tree)
        assert plain(reloaded(program)(tree)) == plain([tree, 1.0])


# ---- pickled and copied ----


def test_a_pickle_keeps_classes_and_objects():
    """Unlike a file, which comes from anywhere."""
    program = record(lambda p, f: Point(Layer(f(p.x), p.y), 1.0), Point(1.0, 2.0), double)
    for again in (pickle.loads(pickle.dumps(program)), copy.copy(program), copy.deepcopy(program)):
        got = again(p=Point(3.0, 4.0), f=double)
        assert got == Point(Layer(6.0, 4.0), 1.0) and type(got) is Point and type(got.x) is Layer
        with pytest.raises(ValueError, match="argument f is <built-in"):
            again(Point(1.0, 2.0), abs)
    batch = pickle.loads(pickle.dumps(program.map(in_axes=(0, None))))
    assert batch(Point([1.0, 2.0], [3.0, 4.0]), double) == Point(Layer([2.0, 4.0], [3.0, 4.0]), [1.0, 1.0])


def test_a_pickle_keeps_what_optree_knows():
    pytest.importorskip("optree")
    program = record(lambda x: collections.OrderedDict(a=x[0] * 2), collections.deque([1.0]))
    again = pickle.loads(pickle.dumps(program))
    got = again(collections.deque([4.0]))
    assert got == {"a": 8.0} and type(got) is collections.OrderedDict
    assert again.map()([collections.deque([4.0]), collections.deque([5.0])])["a"] == [8.0, 10.0]


@given(TREES.filter(leaves))
@settings(deadline=None)
def test_a_pickled_program_takes_and_gives_the_same_trees(tree):
    program = record(lambda x: [x, sum(v * v for v in leaves(x))], tree)
    again = pickle.loads(pickle.dumps(program))
    assert again(tree) == program(tree) and again._recorded.forms == program._recorded.forms


def test_every_number_has_a_name():
    program = record(lambda p, *xs: p["w"][0] * xs[0][0], {"w": [1.0, Point(2.0, 3.0)]}, [4.0, 5.0])
    assert program._recorded.forms.number_names() == [
        "argument p['w'][0]", "argument p['w'][1].x", "argument p['w'][1].y", "argument 1[0]", "argument 1[1]",
    ]  # fmt: skip


@pytest.mark.parametrize("cyclic", ["list", "dict", "in a field"])
def test_what_holds_itself_is_refused(cyclic):
    """Not by how far Python's own calls may go."""
    itself: Any = [1.0] if cyclic != "dict" else {}
    if cyclic == "dict":
        itself["x"] = itself
    else:
        itself[0] = itself if cyclic == "list" else Point(itself, 1.0)
    program = record(lambda xs: xs[0] * 2, [1.0])
    for call in (program, program.grad, program.value_and_grad):
        with pytest.raises(TypeError, match="was recorded as"):
            call(itself)
    for call in (
        lambda: record(lambda x: x, itself),
        lambda: record(lambda x: itself, 1.0),
        lambda: tapegrad.grad(lambda x: Value(1.0))(itself),
        lambda: tapegrad.scan(lambda state, x: (state, x), itself, [1.0]),
    ):
        with pytest.raises(TypeError, match="is nested too deep, or holds itself"):
            call()
