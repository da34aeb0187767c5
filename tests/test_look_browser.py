"""The pages in a real browser: the film to its end and back, a leaf changed, keys, hover, a click in a large graph."""

from __future__ import annotations

import random
import shutil
import time

import pytest
from test_look import large, loss, neuron

import tapegrad
from tapegrad import Value, demo, draw, record
from tapegrad.look.small import is_computed

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt install chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def show(browser, tmp_path):
    """A function that opens a drawing; at the end nothing was said on the console and nothing asked of the network."""
    said, asked, pages = [], [], []

    def show(drawing, **options):
        path = tmp_path / f"{len(pages)}.html"
        drawing.save(path)
        page = browser.new_page(viewport={"width": 1400, "height": 900}, **options)
        pages.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield show
    for page in pages:
        page.close()
    assert not said
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def box(page, title):
    """What the box with this title shows."""
    return page.locator(f"g.n:has(text.t:text-is('{title}')) text.soft").all_text_contents()


def caption(page):
    return page.locator(".caption").inner_text()


def edges(page):
    return page.locator("text.edge").all_text_contents()


def test_the_film_of_the_tutorials_neuron_goes_forward_and_back_with_the_tutorials_numbers(show):
    page = show(draw(neuron()[0]))
    assert box(page, "x1") == ["data 2.0", "grad -1.5"] and box(page, "w1") == ["data -3.0", "grad 1.0"]
    page.keyboard.press("Home")
    assert box(page, "o = tanh") == ["data …", "grad …"] and "Start" in caption(page)
    seen = []
    for _ in range(5):
        page.keyboard.press("ArrowRight")
        seen.append(caption(page))
    assert seen[0] == "Forward: x1*w1 = * gives -6.0" and seen[-1] == "Forward: o = tanh gives 0.7071"
    assert box(page, "o = tanh") == ["data 0.7071", "grad …"]
    page.keyboard.press("ArrowRight")
    assert "own grad is 1" in caption(page) and box(page, "o = tanh")[1] == "grad 1.0"
    page.get_by_label("step (right arrow)").click()
    assert edges(page) == ["1.0 \u00d7 0.5 = 0.5"] and box(page, "n = +")[1] == "grad 0.5"
    page.keyboard.press("End")
    assert edges(page) == ["0.5 \u00d7 (-3.0) = -1.5", "0.5 \u00d7 2.0 = 1.0"]
    page.keyboard.press("ArrowLeft")
    assert box(page, "x1")[1] == "grad …" and box(page, "x2")[1] == "grad 0.5"
    page.get_by_label("to the start (Home)").click()
    assert "Start" in caption(page) and page.locator(".count").inner_text() == "0 / 11"


def test_the_demos_page_shows_the_film_of_a_neuron(show, monkeypatch, capsys):
    class Page:
        @staticmethod
        def save(path):
            monkeypatch.setattr(demo, "ROUNDS", 1)
            demo.main(2, 0, str(path))

    page = show(Page)
    assert box(page, "neuron = tanh")[1] == "grad 1.0"
    assert page.locator("polyline").count() == 1 and page.locator("table.heat tr").count() > 10


def test_the_slider_moves_the_film(show):
    page = show(draw(neuron()[0]))
    slider = page.get_by_label("step", exact=True)
    slider.fill("5")
    assert caption(page) == "Forward: o = tanh gives 0.7071"
    slider.press("ArrowRight")
    assert page.locator(".count").inner_text() == "6 / 11"


def test_contributions_add_up_where_a_node_is_shared(show):
    x = Value(3.0, label="x")
    y = x * x + x * 2.0
    page = show(draw(y))
    assert box(page, "x") == ["data 3.0", "grad 8.0"]
    sums = page.locator("text.sum").all_text_contents()
    assert len(sums) == 1 and sorted(sums[0].split(" + ")) == ["2.0", "3.0", "3.0"]


def test_a_changed_leaf_changes_all_that_follows(show):
    page = show(draw(neuron()[0]))
    page.locator("input[data-leaf]").nth(4).fill("7.5")
    n = (Value(7.5) - 6.0).data
    b = Value(7.5)
    out = (b - 6.0).tanh()
    out.backward()
    assert box(page, "o = tanh") == [f"data {out.data:.4g}", "grad 1.0"]
    assert box(page, "n = +")[0] == f"data {n:.1f}" and box(page, "b") == ["data 7.5", f"grad {b.grad:.4g}"]


def test_every_operation_is_computed_in_the_page_as_in_c(show):
    """All rows of the table that a page computes, with random weights, changed and changed back."""
    rng = random.Random(3)
    x, y, roots = Value(0.3, label="x"), Value(0.4, label="y"), []
    rows = [row for row in tapegrad.tape.operations if is_computed(row) and row.method[0] != "_"]
    unary = [row.method for row in rows if row.kind == "unary"]
    named = [row.method for row in rows if row.kind == "binary"]
    assert len(unary) >= 27 and len(named) >= 10
    roots += [getattr(x + 1.0 if method == "acosh" else x, method)() for method in unary]
    roots += [getattr(x, method)(y) for method in dict.fromkeys(named)]
    roots += [x + y, x - y, x * y, x / y, x ** y, x ** 3, -x, abs(x)]
    roots += [tapegrad.dot([x, y], [y, y], x), tapegrad.sum([x, y, x]), tapegrad.logsumexp([x, y]),
              tapegrad.mse([x, y], [y, x]), tapegrad.cross_entropy([x, y], 1),
              tapegrad.hinge([x, y], [y, x])]  # fmt: skip
    total = tapegrad.sum([root * rng.uniform(-1, 1) for root in roots])
    total.backward()
    page = show(draw(total))

    def shown():
        page.locator("g.n.root").click()
        value = page.locator("table.details tr").nth(1).locator("td").nth(1).inner_text()
        page.locator("g.n:has(text.t:text-is('x'))").click()
        slope = page.locator("table.details tr").nth(2).locator("td").nth(1).inner_text()
        return float(value), float(slope)

    before = shown()
    assert before == (pytest.approx(total.data, rel=1e-12), pytest.approx(x.grad, rel=1e-9))
    page.locator("input[data-leaf]").nth(0).fill("0.5")
    assert shown()[0] != before[0]
    page.locator("input[data-leaf]").nth(0).fill("0.3")
    assert shown() == (pytest.approx(total.data, rel=1e-12), pytest.approx(x.grad, rel=1e-9))


def test_what_the_page_cannot_compute_is_shown_and_not_changed(show):
    x = Value(2.5, label="x")
    page = show(draw(x.gamma() * x))
    assert box(page, "*")[0] == f"data {(x.gamma() * x).data:.4g}"
    assert page.locator("input[data-leaf]").count() == 0


def test_hovering_shows_formula_values_partials_and_the_line(show):
    def f(x, y):
        return (x * y).tanh()

    page = show(draw(record(f, 0.5, 2.0), 0.5, 2.0))
    page.locator("g.n:has(text.t:text-is('*'))").hover()
    details = page.locator("table.details").inner_text()
    assert "x * y" in details and "x = 0.5" in details and "test_look_browser.py" in details
    assert "return (x * y).tanh()" in details and "0.41997" in details  # 1 - tanh(1)^2


def test_nodes_are_reached_by_keyboard_and_say_what_they_are(show):
    page = show(draw(neuron()[0]))
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('n')"):
            break
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "data" in name and "grad" in name
    page.keyboard.press("Enter")
    assert page.locator("table.details").count() == 1


def test_the_film_plays_by_itself(show):
    page = show(draw(Value(2.0, label="x") * 3.0))
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    page.wait_for_function("document.querySelector('.count').textContent[0] !== '0'", timeout=5000)
    page.keyboard.press(" ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overlaps_and_no_text_is_cut_at_200_nodes(show, scheme):
    rng = random.Random(1)
    values = [Value(rng.uniform(-1, 1), label=f"leaf number {k}") for k in range(40)]
    for _ in range(150):
        a, b = rng.sample(values[-30:], 2)
        values.append((a * b).tanh() if rng.random() < 0.3 else a + b)
    page = show(draw(tapegrad.sum(values[-12:])), color_scheme=scheme)
    faults = page.evaluate("""() => {
      const boxes = [...document.querySelectorAll("g.n")].map(g => [g.querySelector("rect").getBBox(), g]);
      const faults = [];
      boxes.forEach(([a, g], k) => {
        g.querySelectorAll("text").forEach(t => {
          const b = t.getBBox();
          if (b.x < a.x || b.x + b.width > a.x + a.width || b.y + b.height > a.y + a.height)
            faults.push("cut: " + t.textContent);
        });
        boxes.slice(0, k).forEach(([b]) => {
          if (a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height)
            faults.push("overlap");
        });
      });
      if (document.documentElement.scrollWidth > innerWidth) faults.push("the page is wider than the window");
      return faults;
    }""")  # fmt: skip
    assert faults == []


def test_a_click_in_a_large_graph_opens_the_cone_of_a_node(show, sized):
    w, xs = large(sized(100_000, 1_000_000))
    start = time.perf_counter()
    page = show(draw(record(loss, w, xs), w, xs))
    assert time.perf_counter() - start < sized(20, 60)
    first = page.locator("#cone-of").inner_text()
    assert first.startswith("Node ") and page.locator("#cone g.n").count() > 3
    page.locator("img[data-raster=nodes]").click(position={"x": 300, "y": 150})
    second = page.locator("#cone-of").inner_text()
    assert second != first and page.locator("#cone g.n.root").count() == 1
    page.locator("tr[data-group]").nth(1).click()
    assert page.locator("#cone-of").inner_text().startswith("Node ")
    page.locator(".fold g[data-group]").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#cone .caption").inner_text()
    page.locator("img[data-raster=reads]").hover(position={"x": 200, "y": 100})
    assert "reads from" in page.locator("figure:has(img[data-raster=reads]) .spot").inner_text()


def test_the_box_of_a_loop_opens_to_a_step_and_that_of_its_end_to_the_end(show):
    final = record(lambda s: s * s, 1.0)
    loop = record(lambda s, x: s * x, 1.0, 1.0).scan(final=final)
    page = show(draw(loop, 1.0, [2.0, 3.0, 5.0]))
    assert page.locator("#opened").is_hidden()
    page.locator("g[data-opens=step]").click()
    assert page.locator("#opened h2").first.inner_text() == "step 2 of 3"
    assert box(page, "s") == ["data 6.0", "grad 300.0"] and box(page, "next s = *") == ["data 30.0", "grad 60.0"]
    page.locator("#opened input[aria-label='which step']").focus()
    page.keyboard.press("Home")
    assert page.locator("#opened h2").first.inner_text() == "step 0 of 3"
    assert box(page, "s") == ["data 1.0", "grad 1800.0"]
    field = page.locator("input[data-leaf]").first
    field.fill("2")
    assert box(page, "next s = *") == ["data 4.0", "grad 900.0"]
    page.locator("g[data-opens=final]").focus()
    page.keyboard.press("Enter")
    assert page.locator("#opened h2").first.inner_text() == "at the end"
    assert box(page, "s") == ["data 30.0", "grad 60.0"]


def test_the_page_of_a_loop_of_large_steps_has_the_lines_of_one(show):
    def f(state, x):
        for _ in range(300):
            state = (state * x).tanh() + 0.1
        return state

    page = show(draw(record(f, 1.0, 1.0).scan(), 1.0, [0.5, 0.25]))
    assert page.locator("#cone-of").inner_text().startswith("Node ")
