"""Pictures and heat: what is drawn, saved, counted, and how fast."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import time
import xml.etree.ElementTree as ElementTree

import pytest

import tapegrad
from tapegrad import Value, draw, heat, nn, record
from tapegrad.look.layout import layered
from tapegrad.look.small import short

SVG = "{http://www.w3.org/2000/svg}"


def neuron():
    """The tutorial's."""
    x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
    w1, w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
    b = Value(6.8813735870195432, label="b")
    x1w1, x2w2 = x1 * w1, x2 * w2
    total = x1w1 + x2w2
    n = total + b
    o = n.tanh()
    for v, label in (x1w1, "x1*w1"), (x2w2, "x2*w2"), (total, "x1*w1 + x2*w2"), (n, "n"), (o, "o"):
        v.label = label
    o.backward()
    return o, [x1, x2, w1, w2, b]


def texts(svg):
    return ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def data_of(html):
    """What the page makes the film of."""
    found = re.search(r"(?:film\(document\.getElementById\(\"film\"\), |overview\(|boxed\()(.*)\);\n</script>", html)
    return json.loads(found[1])


# ---- small graphs ----


def test_the_tutorials_neuron_shows_the_tutorials_numbers():
    o, leaves = neuron()
    shown = texts(draw(o).to_svg())
    for label, data, slope in ("x1", "2.0", "-1.5"), ("w1", "-3.0", "1.0"), ("x2", "0.0", "0.5"), ("w2", "1.0", "0.0"):
        at = shown.index(label)
        assert shown[at : at + 3] == [label, f"data {data}", f"grad {slope}"]
    at = shown.index("o = tanh")
    assert shown[at + 1 : at + 3] == ["data 0.7071", "grad 1.0"]
    assert leaves[0].grad == pytest.approx(-1.5)


def test_a_shared_node_is_drawn_once_with_an_edge_for_each_use():
    x = Value(3.0, label="x")
    y = x * x + x
    picture = draw(y).to_dot()
    assert picture.count('label="x\\n') == 1 and picture.count("->") == 4


def test_constants_are_folded_into_their_operation():
    x = Value(3.0, label="x")
    shown = texts(draw(2.0 * x ** 2 - 1).to_svg())
    assert {"· ** 2", "· - 1"} <= set(shown) and not {"2.0", "1.0"} & set(shown)
    assert any(t in shown for t in ("2 * ·", "· * 2"))


def test_several_roots_are_drawn_in_one_graph():
    x = Value(2.0, label="x")
    a, b = x * 2.0, x * 3.0
    drawing = draw([a, b])
    assert [drawing.graph.value(k) for k in drawing.graph.roots] == [4.0, 6.0]
    assert drawing.to_dot().count('label="x\\n') == 1


def test_a_program_is_drawn_with_the_names_of_its_parameters():
    program = record(lambda w, bias: (w[0] * w[1] + bias).tanh(), [0.5, 2.0], 0.25)
    shown = texts(draw(program, [0.5, 2.0], 0.25).to_svg())
    assert {"w[0]", "w[1]", "bias", "tanh", "data 0.8483"} <= set(shown)
    bare = texts(draw(program).to_svg())
    assert "bias" in bare and not any(t.startswith("data") for t in bare)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(TypeError, match="takes a Value"):
        draw([1.0])
    with pytest.raises(ValueError, match="no Value"):
        draw([])
    with pytest.raises(TypeError, match="for a Program or a Loop alone"):
        draw(Value(1.0), 2.0)
    with pytest.raises(ValueError, match="saved as"):
        draw(Value(1.0)).save("x.pdf")


def test_each_format_is_saved(tmp_path):
    drawing = draw(neuron()[0])
    for kind, start in ("svg", b"<svg"), ("html", b"<!doctype html>"), ("dot", b"digraph"):
        drawing.save(tmp_path / f"x.{kind}")
        assert (tmp_path / f"x.{kind}").read_bytes().startswith(start)
    if importlib.util.find_spec("resvg_py") is None:
        with pytest.raises(ImportError, match=r"tapegrad\[draw\]"):
            drawing.save(tmp_path / "x.png")
    else:
        drawing.save(tmp_path / "x.png")
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_notebook_shows_a_small_graph_as_svg_and_a_large_one_in_a_frame():
    assert draw(neuron()[0])._repr_mimebundle_()["image/svg+xml"].startswith("<svg")
    x = Value(1.0)
    for _ in range(1000):
        x = x * 1.001
    bundle = draw(x)._repr_mimebundle_()
    assert bundle["text/html"].startswith("<iframe srcdoc=") and "<script" not in bundle["text/html"]


def test_labels_cannot_break_the_page_or_the_picture():
    x = Value(1.0, label="</script><b>&\"'")
    drawing = draw(x * 2.0)
    assert "</script><b>" not in drawing.to_html() and ElementTree.fromstring(drawing.to_svg()) is not None
    assert data_of(drawing.to_html())["nodes"][0]["name"] == x.label


def test_the_page_asks_nothing_of_the_network():
    html = draw(neuron()[0]).to_html()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|@import|fetch\(|XMLHttpRequest""", html)


def test_the_film_has_each_partial_and_what_the_sweep_gives():
    o, leaves = neuron()
    nodes = {v["name"]: v for v in data_of(draw(o).to_html())["nodes"]}
    assert nodes["x1*w1"]["partial"] == [-3.0, 2.0] and nodes["o"]["formula"] == "tanh(n)"
    assert [nodes[v.label]["adj"] for v in leaves] == [v.grad for v in leaves]
    assert nodes["o"]["data"] == o.data == 0.7071067811865476


def every_operation(x, y):
    """A sum of each row of the table that a program has, with weights."""
    parts = []
    for row in tapegrad.tape.operations:
        if row.kind == "unary" and row.method[0] != "_":
            parts.append(getattr(x + 1 if row.method == "acosh" else x, row.method)())
        elif row.kind == "binary" and row.method[0] != "_":
            parts.append(getattr(x, row.method)(y))
    parts += [x + y, x - y, x * y, x / y, x ** y, x ** 3, -x, abs(x), tapegrad.dot([x, y], [y, y], x)]
    parts += [tapegrad.sum([x, y, x]), tapegrad.logsumexp([x, y]), tapegrad.mse([x, y], [y, x])]
    parts += [tapegrad.cross_entropy([x, y], 1), tapegrad.hinge([x, y], [y, x])]
    total = parts[0] * 0.25
    for k, part in enumerate(parts[1:]):
        total = total + part * (0.3 - 0.01 * k)
    return total


@pytest.mark.parametrize("at", [(0.3, 0.4), (0.9, 0.2), (0.01, 3.0)])
def test_values_and_adjoints_of_a_graph_are_those_of_the_replay_and_of_the_sweep_to_the_bit(at):
    program = record(every_operation, 0.3, 0.4, on_branch="record")
    graph = draw(program, *at).graph
    value, slopes = program.value_and_grad(*at, argnums=(0, 1))
    assert graph.value(graph.roots[0]) == value
    assert tuple(graph.adjoint(i) for i in graph.given) == slopes
    leaves = [Value(number) for number in at]
    total = every_operation(*leaves)
    graph = draw(total).graph
    total.backward()
    assert graph.value(graph.roots[0]) == total.data
    given = [i for i in range(graph.n) if graph.kind(i) == 1]
    assert [graph.adjoint(i) for i in given] == [v.grad for v in leaves]


def test_a_graph_with_a_rule_says_so_and_shows_the_grads_that_are():
    x = Value(3.0, label="x")
    y = x * x
    y._backward = lambda: setattr(x, "grad", x.grad + 100.0)
    y.backward()
    drawing = draw(y)
    assert "* (rule)" in texts(drawing.to_svg()) and "grad 100.0" in texts(drawing.to_svg())
    assert data_of(drawing.to_html())["nodes"][-1]["rule"]


def test_drawing_leaves_the_values_as_they_were():
    o, leaves = neuron()
    before = [(v.data, v.grad) for v in (o, *leaves)]
    draw(o).to_html()
    assert [(v.data, v.grad) for v in (o, *leaves)] == before


@pytest.mark.parametrize(
    ("x", "shown"),
    [(2.0, "2.0"), (0.9999999999999996, "1.0"), (9124.57, "9125"), (12345.0, "12345.0"), (-5.5, "-5.5")],
)
def test_a_number_in_a_box_has_four_digits_and_says_no_more_than_it_knows(x, shown):
    assert short(x) == shown


# ---- layout ----


def overlapping(layout, sizes):
    boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(layout.at, sizes)]
    return [
        (a, b) for a in range(len(boxes)) for b in range(a)
        if boxes[a][0] < boxes[b][2] and boxes[b][0] < boxes[a][2]
        and boxes[a][1] < boxes[b][3] and boxes[b][1] < boxes[a][3]
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_no_box_lies_on_another_and_edges_go_from_left_to_right(seed):
    rng = random.Random(seed)
    n = rng.choice([2, 30, 200])
    edges = [(rng.randrange(k), k) for k in range(1, n) for _ in range(2)]
    sizes = [(rng.uniform(40, 200), rng.choice([20.0, 58.0])) for _ in range(n)]
    layout = layered(sizes, edges, 150.0)
    assert not overlapping(layout, sizes)
    assert all(layout.at[a][0] + sizes[a][0] / 2 < layout.at[b][0] - sizes[b][0] / 2 for a, b in edges)
    assert all(0 <= x - w / 2 and x + w / 2 <= layout.width for (x, _), (w, _) in zip(layout.at, sizes))
    assert all(0 <= y - h / 2 and y + h / 2 <= layout.height for (_, y), (_, h) in zip(layout.at, sizes))


def test_a_tree_is_drawn_without_crossings():
    edges = [(2 * k - 62, k) for k in range(32, 63)] + [(2 * k - 61, k) for k in range(32, 63)]
    edges = [(a, b) for a, b in edges if a < b]
    layout = layered([(60.0, 30.0)] * 63, edges, 80.0)
    for a, b in edges:
        for c, d in edges:
            if layout.at[a][0] == layout.at[c][0] and layout.at[b][0] == layout.at[d][0]:
                assert (layout.at[a][1] - layout.at[c][1]) * (layout.at[b][1] - layout.at[d][1]) >= 0


# ---- large graphs ----


def step(w, x):
    for row in w:
        x = (x * row + 0.1).tanh()
    return x


def loss(w, xs):
    total = 0.0
    for x in xs:
        total = total + (step(w, x) - 0.5) ** 2
    return total


def large(n):
    rng = random.Random(0)
    w = [rng.gauss(0, 1) for _ in range(30)]
    return w, [rng.random() for _ in range(n // 66)]


def test_a_large_graph_is_folded_to_its_lines():
    w, xs = large(20000)
    program = record(loss, w, xs)
    drawing = draw(program, w, xs)
    html = drawing.to_html()
    assert "x = (x * row + 0.1).tanh()" in html and "inputs and constants" in html
    svg = drawing.to_svg()
    assert ElementTree.fromstring(svg) is not None
    counts = [int(t.replace(",", "").split(" ")[0]) for t in texts(svg) if " nodes" in t]
    assert sum(counts) == drawing.graph.n
    assert drawing.to_dot().startswith("digraph")


def test_the_raster_counts_every_node_and_every_read():
    from tapegrad._core import ffi, lib

    from tapegrad.look.heat import Groups

    w, xs = large(20000)
    graph = draw(record(loss, w, xs), w, xs).graph
    groups = Groups(graph)
    nodes, reads = ffi.new("uint32_t[]", 1024 * 512), ffi.new("uint32_t[]", 1024 * 512)
    lib.tg_graph_raster(graph.core, groups.group, groups.n, 1024, 512, nodes, reads)
    assert sum(nodes) == graph.n and sum(reads) == graph.core.n_operands


def test_cones_hold_at_most_200_nodes_and_the_numbers_of_the_graph():
    w, xs = large(20000)
    drawing = draw(record(loss, w, xs), w, xs)
    data = data_of(drawing.to_html())
    assert data["n"] == drawing.graph.n and 2 <= len(data["cones"])
    for cone in data["cones"]:
        nodes = cone["film"]["nodes"]
        assert 1 <= len(nodes) <= 200
        assert nodes[-1]["data"] == drawing.graph.value(cone["position"])
        assert nodes[-1]["adj"] == drawing.graph.adjoint(cone["position"])


def test_a_large_graph_of_values_is_shown_by_operation_and_within_debug_too():
    w, xs = large(20000)
    value = loss([Value(a) for a in w], xs)
    assert "by operation" in draw(value).to_html()
    with tapegrad.debug():
        value = loss([Value(a) for a in w], xs)
        html = draw(value).to_html()
    assert "x = (x * row + 0.1).tanh()" in html and "inputs and constants" in html


def test_a_million_nodes_take_a_second_and_less_than_a_megabyte(sized):
    w, xs = large(sized(200_000, 1_000_000, cffi=200_000))
    program = record(loss, w, xs)
    draw(record(loss, *large(20000)), *large(20000)).to_html()
    took = []
    for _ in range(3):
        start = time.perf_counter()
        html = draw(program, w, xs).to_html()
        took.append(time.perf_counter() - start)
    assert len(html) < 1_000_000
    assert min(took) < 2.0  # a second on a quiet machine


def test_more_lines_than_boxes_are_folded_to_functions():
    text = "\n".join(
        [f"def f{k}(x):\n    y = x * 1.01\n    return y.tanh() + {k}.5\n" for k in range(150)]
        + ["def f(x):\n    for g in all_of_them:\n        x = g(x)\n    return x\n"]
    )
    space = {}
    exec(compile(text, "many.py", "exec"), space)
    space["all_of_them"] = [space[f"f{k}"] for k in range(150)]
    shown = draw(record(space["f"], 0.5)).to_svg()
    assert ElementTree.fromstring(shown) is not None and "f7 in many.py" in shown


# ---- heat ----


def test_heat_counts_each_line_and_its_share():
    w, xs = large(6000)
    found = record(loss, w, xs).heat(w, xs)
    lines = {row.text.strip(): row for row in found.rows}
    layer = lines["x = (x * row + 0.1).tanh()"]
    assert layer.nodes == 2 * 30 * len(xs)
    assert sum(row.time for row in found.rows) == pytest.approx(1.0, abs=0.05)
    assert sum(row.nodes for row in found.rows) == record(loss, w, xs).stats["instructions"]
    text = found.to_text(20)
    assert "def step(w, x):" in text and "█" in text and "█" not in found.to_text()


def test_heat_by_adjoint_and_rounding_is_what_the_sweep_gives():
    def f(x, y):
        big = x * 100.0
        return big * y

    found = heat(f, 2.0, 3.0, by="adjoint")
    rows = {row.text.strip(): row for row in found.rows}
    assert rows["big = x * 100.0"].adjoint == 200.0 * 3.0 and rows["big = x * 100.0"].partial == 100.0
    assert rows["return big * y"].adjoint == 600.0 and rows["return big * y"].partial == 200.0
    assert heat(lambda x: x * 0.1, 0.1, by="rounding").rows[0].rounding > 0.0
    with pytest.raises(ValueError, match="by must be"):
        heat(f, 2.0, 3.0, by="weather")


def test_heat_is_saved_for_a_viewer_and_as_a_page(tmp_path):
    found = heat(lambda x: x.tanh() * x, 0.5, by="time")
    found.save(tmp_path / "x.speedscope.json")
    profile = json.loads((tmp_path / "x.speedscope.json").read_text())
    assert profile["$schema"].endswith("file-format-schema.json")
    (one,) = profile["profiles"]
    assert len(one["samples"]) == len(one["weights"]) == len(profile["shared"]["frames"])
    assert one["endValue"] == pytest.approx(sum(one["weights"]))
    found.save(tmp_path / "x.html")
    assert "<table" in (tmp_path / "x.html").read_text()
    found.save(tmp_path / "x.txt")
    with pytest.raises(ValueError, match="saved as"):
        found.save(tmp_path / "x.pdf")
    assert found._repr_html_().startswith("<pre>")


def test_a_layer_of_neurons_is_drawn():
    model = nn.MLP(3, [4, 4, 1])
    drawing = draw(model([1.0, 2.0, -1.0]))
    assert drawing.is_small and not overlapping(drawing._picture().layout, drawing._picture().sizes)
