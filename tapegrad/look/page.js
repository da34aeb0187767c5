"use strict";
const {exp, expm1, log, log1p, log2, log10, sqrt, sin, cos, tan, asin, acos, atan, atan2, sinh, cosh, asinh, atanh,
  acosh, cbrt, floor, ceil, trunc, hypot, pow} = Math;
const tg_exp = exp, tg_expm1 = expm1, tg_log = log, tg_log1p = log1p, tg_sin = sin, tg_cos = cos, tg_sinh = sinh,
  tg_cosh = cosh, tg_pow = pow;
const fabs = Math.abs, TG_1_LN2 = Math.LOG2E, TG_1_LN10 = Math.LOG10E, TG_2_SQRTPI = 2 / Math.sqrt(Math.PI);
const tg_tanh = a => {
  const s = Math.abs(a), e = expm1(2 * s), y = s >= 22 ? 1 : s < 0.55 ? e / (e + 2) : 1 - 2 / (exp(2 * s) + 1);
  return a < 0 ? -y : y;
};
const tg_relu = a => a < 0 ? 0 : a, tg_weigh = (a, b) => a === 0 ? 0 : a * b;
const tg_sigmoid = a => { const e = exp(-fabs(a)); return a < 0 ? e / (1 + e) : 1 / (1 + e); };
const tg_softplus = a => (a > 0 ? a : a === a ? 0 : a) + log1p(exp(-fabs(a)));
const tg_max = (a, b) => a > b || a !== a ? a : b, tg_min = (a, b) => a < b || a !== a ? a : b;
const tg_sign = a => a > 0 ? 1 : a < 0 ? -1 : a, tg_share = (a, y) => y === 0 ? 0 : a / y;
const tg_bearing = (a, b) => Math.abs(a) < Math.abs(b) ? 1 / (b + a * (a / b)) : b / a / (a + b * (b / a));
const tg_first = (a, b) => a > b ? 1 : a === b ? 0.5 : a < b ? 0 : a + b;
const tg_pow_da = (a, b) => b === 0 ? 0 : b === 2 ? 2 * a : b * pow(a, b - 1);
const tg_pow_db = (a, b, y) => a === 0 && b >= 0 ? 0 : y * log(a);
const tg_erf = a => {                                   // a series near 0, a continued fraction further out
  const x = fabs(a);
  if (!(x < 6)) return a !== a ? a : Math.sign(a);
  if (x < 2.5) {
    let term = a, sum = a;
    for (let n = 1; fabs(term) > 1e-17 * fabs(sum); n++) { term *= -a * a / n; sum += term / (2 * n + 1); }
    return TG_2_SQRTPI * sum;
  }
  let f = 0;
  for (let n = 60; n > 0; n--) f = n / 2 / (x + f);
  return Math.sign(a) * (1 - exp(-x * x) / Math.sqrt(Math.PI) / (x + f));
};
const lse = xs => {
  const top = Math.max(...xs);
  return isFinite(top) ? top + log(xs.reduce((s, x) => s + exp(x - top), 0)) : top;
};
const half = xs => xs.length >> 1;
const pairs = (xs, f, y = 0) => {
  for (let k = 0; k < half(xs); k++) y += f(xs[k], xs[half(xs) + k]);
  return y;
};
const MANY = {                                          // value, partials
  SUM: [xs => xs.reduce((s, x) => s + x, 0), xs => xs.map(() => 1)],
  DOT: [xs => pairs(xs, (x, z) => x * z, xs.length % 2 ? xs[xs.length - 1] : 0),
    xs => xs.map((_, k) => k < half(xs) ? xs[half(xs) + k] : k < 2 * half(xs) ? xs[k - half(xs)] : 1)],
  LOGSUMEXP: [lse, (xs, y) => xs.map(x => exp(x - y))],
  CROSS_ENTROPY: [xs => lse(xs.slice(0, -1)) - xs[xs.length - 1],
    xs => { const all = xs.slice(0, -1), y = lse(all); return [...all.map(x => exp(x - y)), -1]; }],
  MSE: [xs => pairs(xs, (x, z) => (x - z) ** 2) / half(xs),
    xs => xs.map((x, k) => 2 / half(xs) * (k < half(xs) ? x - xs[half(xs) + k] : x - xs[k - half(xs)]))],
  HINGE: [xs => pairs(xs, (x, z) => tg_relu(1 - x * z)) / half(xs),
    xs => xs.map((x, k) => {
      const other = xs[k < half(xs) ? k + half(xs) : k - half(xs)];
      return 1 - x * other > 0 ? -other / half(xs) : 0;
    })],
  WHERE: [xs => xs[0] !== 0 ? xs[1] : xs[2], xs => [0, xs[0] !== 0 ? 1 : 0, xs[0] !== 0 ? 0 : 1]],
};
const CONSTANT = 0, GIVEN = 1, COMPUTED = 2;

const short = x => {
  if (Number.isInteger(x) && fabs(x) < 1e5) return x.toFixed(1);
  if (!isFinite(x)) return x !== x ? "nan" : x > 0 ? "inf" : "-inf";
  const text = fabs(x) >= 1e-4 && fabs(x) < 1e6 ? String(Number(x.toPrecision(4)))
    : x.toExponential(3).replace(/\.?0+e/, "e");
  return /^-?\d{1,3}$/.test(text) ? text + ".0" : text;
};
const full = x => Number.isInteger(x) && fabs(x) < 1e16 ? x.toFixed(1) : isFinite(x) ? String(x) : short(x);
const signed = x => x < 0 || Object.is(x, -0) ? `(${short(x)})` : short(x);
const make = (tag, attributes = {}, ...children) => {
  const e = document.createElement(tag);
  for (const [name, x] of Object.entries(attributes)) {
    if (name in e && name !== "list" && typeof x !== "string") e[name] = x;
    else e.setAttribute(name, x);
  }
  e.append(...children);
  return e;
};
const draw = (tag, attributes = {}, text) => {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, x] of Object.entries(attributes)) e.setAttribute(name, x);
  if (text !== undefined) e.textContent = text;
  return e;
};

function film(root, data) {
  const {nodes, edges, roots} = data, n = nodes.length;
  let value, adjoint, partial, step = 0, chosen = null, timer = null;
  const forward = [], numbers = nodes.map(v => v.data);
  nodes.forEach((v, i) => { if (v.kind === COMPUTED && v.ops.length && v.box) forward.push(i); });
  const ruled = nodes.some(v => v.rule);
  let backward = [];
  const weight = j => data.seeds ? data.seeds[j] : 1;

  function compute(fresh) {
    value = numbers.slice();
    partial = nodes.map(v => v.partial || []);
    nodes.forEach((v, i) => {
      if (!fresh || v.kind !== COMPUTED || !v.ops.length || v.fixed) return;
      const xs = v.ops.map(k => value[k]), row = ROWS[v.op];
      if (MANY[v.op]) {
        value[i] = MANY[v.op][0](xs);
        partial[i] = MANY[v.op][1](xs, value[i]);
      } else {
        const a = xs[0], b = xs[xs.length - 1], y = value[i] = +row[0](a, b);
        partial[i] = [+row[1](a, b, y), row[2] ? +row[2](a, b, y) : 0].slice(0, xs.length);
      }
    });
    adjoint = new Array(n).fill(0);
    roots.forEach((k, j) => adjoint[k] += weight(j));
    for (let i = n; i-- > 0;)
      if (adjoint[i] !== 0 && nodes[i].ops.length && !nodes[i].rule)
        nodes[i].ops.forEach((k, j) => { if (partial[i][j] !== 0) adjoint[k] += adjoint[i] * partial[i][j]; });
    if (!fresh && data.outside) adjoint = nodes.map(v => v.adj);
    backward = ruled || data.outside ? [] : forward.slice().reverse().filter(i => adjoint[i] !== 0);
    slider.max = last();
  }
  const last = () => forward.length + (backward.length ? 1 + backward.length : 0);

  // ---- the page's parts ----
  const button = (text, name, act) =>
    make("button", {type: "button", "aria-label": name, title: name, onclick: act}, text);
  const slider = make("input", {type: "range", min: "0", max: "0", value: "0", "aria-label": "step"});
  slider.oninput = () => go(+slider.value);
  const count = make("span", {class: "mono count"});
  const play = button("▶ play", "play (space)", () => toggle());
  const fit = button("fit", "the whole graph, or its size (f)", () => {
    const all = fit.textContent === "fit";
    fit.textContent = all ? "size" : "fit";
    svg.setAttribute("width", all ? "100%" : data.width);
    svg.setAttribute("height", all ? "74vh" : data.height);
  });
  const bar = make("div", {class: "bar"}, button("|◀", "to the start (Home)", () => go(0)),
    button("◀ back", "back (left arrow)", () => go(step - 1)),
    button("step ▶", "step (right arrow)", () => go(step + 1)),
    button("▶|", "to the end (End)", () => go(last())), play, slider, count, fit);
  const caption = make("div", {class: "caption", "aria-live": "polite"});
  const svg = draw("svg", {
    width: data.width, height: data.height, viewBox: `0 0 ${data.width} ${data.height}`, role: "group",
    "aria-label": "graph",
  });
  const marker = draw("marker", {
    id: "head", viewBox: "0 0 8 8", refX: 3, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto",
    markerUnits: "userSpaceOnUse",
  });
  marker.append(draw("path", {class: "head", d: "M0 0L8 4L0 8z"}));
  svg.append(marker);
  const lines = edges.map(([, , , d]) => svg.appendChild(draw("path", {d, "marker-end": "url(#head)"})));
  const boxes = nodes.map((v, i) => {
    if (!v.box) return null;
    const [x, y, w, h] = v.box, kind = roots.includes(i) ? "root" : v.kind === COMPUTED ? "node" : "leaf";
    const g = draw("g", {class: `n ${kind}`, tabindex: 0, role: "button", "data-node": i});
    g.append(draw("rect", {x, y, width: w, height: h, rx: kind === "leaf" ? 12 : 4}),
      draw("text", {class: "t", x: x + w / 2, y: y + 19}, v.title));
    const rows = [34, 49].map(dy => g.appendChild(draw("text", {class: "soft", x: x + w / 2, y: y + dy})));
    g.onclick = g.onfocus = () => choose(i);
    g.onmouseenter = () => choose(i);
    svg.append(g);
    return {g, rows};
  });
  const over = svg.appendChild(draw("g", {"pointer-events": "none"}));
  const details = make("div"), inputs = make("div");
  const view = make("div", {class: "view"}, svg);
  const side = make("div", {class: "side"}, details, inputs);
  root.replaceChildren(make("div", {class: "film", tabindex: "-1"}, bar, caption, view, side));

  // What node i passes on to its operand j, in numbers.
  const product = (i, j) => {
    const g = adjoint[i], slope = partial[i][j];
    return `${short(g)} × ${signed(slope)} = ${short(g * slope)}`;
  };

  // ---- leaves that can be changed ----
  const free = nodes.map((v, i) => i).filter(i => nodes[i].kind !== COMPUTED && (nodes[i].box || nodes[i].name));
  const fixed = nodes.some(v => v.fixed || v.rule) || data.outside;
  if (free.length && !fixed) {
    const table = make("table");
    free.slice(0, 60).forEach(i => {
      const field = make("input", {
        type: "number", step: "any", value: String(numbers[i]), "data-leaf": i, "aria-label": nodes[i].name || "input",
      });
      field.oninput = () => {
        if (field.value === "" || !isFinite(+field.value)) return;
        numbers[i] = +field.value;
        compute(true);
        go(Math.min(step, last()));
      };
      table.append(make("tr", {}, make("td", {}, nodes[i].name || nodes[i].title), make("td", {}, field)));
    });
    inputs.append(make("h2", {}, "Change a number"), table);
  }

  function choose(i) {
    chosen = i;
    boxes.forEach((b, k) => b && b.g.classList.toggle("on", k === i));
    const v = nodes[i], rows = [["formula", v.formula], ["data", full(value[i])]];
    if (v.doc) rows.push(["meaning", v.doc]);
    if (!ruled) rows.push(["grad", full(adjoint[i])]);
    if (v.where) rows.push(["line", v.where + (v.source ? "  " + v.source : "")]);
    if (v.cut) rows.push(["", "what it is computed from is not in this picture"]);
    if (v.rule) rows.push(["", "a Python rule stands in for its slope"]);
    v.ops.forEach((k, j) => {
      const who = nodes[k].name || nodes[k].title;
      const plain = nodes[k].kind === CONSTANT && !nodes[k].name;
      rows.push([v.ops.length > 8 ? `x[${j}]` : "abcdefgh"[j], plain ? full(value[k]) : `${who} = ${full(value[k])}`]);
      if (!v.rule && nodes[k].kind !== CONSTANT) rows.push(["  slope", full(partial[i][j])]);
    });
    if (!ruled && backward.length) {
      const from = [];
      nodes.forEach((u, p) => u.ops.forEach((k, j) => {
        if (k === i && adjoint[p] !== 0) from.push(`${product(p, j)}  from ${u.title}`);
      }));
      if (from.length) rows.push([from.length > 1 ? "adds up" : "comes from", from.join("\n")]);
    }
    const table = make("table", {class: "details"});
    for (const [a, b] of rows)
      table.append(make("tr", {}, make("td", {}, a), make("td", {style: "white-space: pre-wrap"}, b)));
    details.replaceChildren(make("h2", {}, v.title), table);
  }

  function go(to) {
    step = Math.max(0, Math.min(last(), to));
    slider.value = step;
    slider.setAttribute("aria-valuetext", `step ${step} of ${last()}`);
    count.textContent = `${step} / ${last()}`;
    over.replaceChildren();
    lines.forEach(l => l.removeAttribute("class"));
    const done = new Set(forward.slice(0, step)), terms = new Map(), seeded = step > forward.length;
    const passed = seeded ? backward.slice(0, step - forward.length - 1) : [];
    if (seeded) roots.forEach((k, j) => terms.set(k, [...(terms.get(k) || []), weight(j)]));
    passed.forEach(i => nodes[i].ops.forEach((k, j) => {
      if (nodes[k].kind === CONSTANT || partial[i][j] === 0 && nodes[i].op === "POWK" && j) return;
      if (!terms.has(k)) terms.set(k, []);
      terms.get(k).push(adjoint[i] * partial[i][j]);
    }));
    const whole = step === last();
    boxes.forEach((b, i) => {
      if (!b) return;
      const shown = nodes[i].kind !== COMPUTED || !nodes[i].ops.length || done.has(i), sum = terms.get(i);
      const grad = whole && data.outside ? short(adjoint[i]) : sum ? short(sum.reduce((s, x) => s + x, 0)) : "";
      b.rows[0].textContent = "data " + (shown ? short(value[i]) : "…");
      b.rows[1].textContent = "grad " + (grad || (whole && !ruled ? "0.0" : "…"));
      b.g.classList.remove("now");
      b.g.setAttribute("aria-label", `${nodes[i].title}, ${b.rows[0].textContent}, ${b.rows[1].textContent}`);
      if (sum && sum.length > 1) {
        const [x, y, w, h] = nodes[i].box;
        let text = sum.map((s, k) => k ? signed(s) : short(s)).join(" + ");
        if (6.65 * text.length > w + 20) text = `${sum.length} contributions add up`;
        over.append(draw("text", {class: "sum", x: x + w / 2, y: y + h + 12}, text));
      }
    });
    let active = -1, text;
    if (!step) text = "Start: the inputs. Step forward to compute, one operation at a time.";
    else if (!seeded) {
      active = forward[step - 1];
      const v = nodes[active];
      text = `Forward: ${v.title}  gives ${short(value[active])}`;
      mark(active, () => "");
    } else if (!passed.length) {
      active = roots[0];
      text = data.seeds ? "Backward: later steps pass back the grads of the next state; that of a y is 1."
        : "Backward: the result's own grad is 1.";
    } else {
      active = passed[passed.length - 1];
      const v = nodes[active];
      text = `Backward: ${v.title} has grad ${short(adjoint[active])} and passes on, to each operand, grad × partial.`;
      mark(active, j => product(active, j));
    }
    caption.textContent = text;
    if (active >= 0 && boxes[active]) {
      boxes[active].g.classList.add("now");
      if (step !== go.seen) reveal(nodes[active].box);
    }
    go.seen = step;
    if (chosen !== null) choose(chosen);
  }

  function mark(i, text) {
    edges.forEach(([a, b, j], e) => {
      if (b !== i) return;
      lines[e].setAttribute("class", "now");
      const words = text(j);
      if (!words) return;
      const [x, y, w, h] = nodes[a].box, twin = edges.filter(([c, d, m]) => c === a && d === b && m < j).length;
      const rows = words.length > 21 ? words.split(/(?==)/) : [words], left = x + w + 7;
      rows.forEach((row, line) => {
        const middle = y + h / 2 + 15 * (twin * rows.length + line);
        const width = 6.65 * row.length + 4;
        over.append(draw("rect", {class: "under", x: left - 2, y: middle - 8, width, height: 16}));
        over.append(draw("text", {class: "edge", x: left, y: middle + 4}, row));
      });
    });
  }

  function reveal([x, y, w, h]) {
    const {scrollLeft, scrollTop, clientWidth, clientHeight} = view;
    if (x < scrollLeft || x + w > scrollLeft + clientWidth) view.scrollLeft = x + w / 2 - clientWidth / 2;
    if (y < scrollTop || y + h > scrollTop + clientHeight) view.scrollTop = y + h / 2 - clientHeight / 2;
  }

  function toggle() {
    if (timer) { clearInterval(timer); timer = null; }
    else {
      if (step === last()) go(0);
      timer = setInterval(() => { go(step + 1); if (step === last()) toggle(); }, 900);
    }
    play.textContent = timer ? "❚❚ pause" : "▶ play";
  }
  document.onkeydown = event => {
    if (event.target.matches("input[type=number]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowRight: () => go(step + 1), ArrowLeft: () => go(step - 1), Home: () => go(0), End: () => go(last()),
    }[event.key];
    if (event.key === "f") fit.click();
    else if (act) { act(); event.preventDefault(); }
    else if (event.key === " " && !event.target.matches("button, [data-group], [data-opens]")) {
      toggle();
      event.preventDefault();
    }
    else if (event.key === "Enter" && event.target.dataset.node) choose(+event.target.dataset.node);
  };
  compute(false);
  go(last());
  choose(roots.length ? roots[0] : 0);
}

// A loop: its box opens the film of a step, which a slider chooses, and the box of `final` that of the end.
function boxed(films) {
  const root = document.getElementById("opened"), title = make("h2"), place = make("div");
  const most = String(films.step.length - 1);
  const slider = make("input", {type: "range", min: "0", max: most, value: most, "aria-label": "which step"});
  slider.onkeydown = event => event.stopPropagation();  // the film has arrow keys of its own
  const bar = make("p", {class: "which"}, slider);
  root.replaceChildren(title, bar, place);
  root.hidden = true;
  function show(kind) {
    const {title: text, film: data} = kind === "step" ? films.step[+slider.value] : films.final[0];
    root.hidden = false;
    bar.hidden = kind !== "step" || films.step.length < 2;
    title.textContent = text;
    film(place, data);
  }
  slider.oninput = () => show("step");
  document.querySelectorAll("[data-opens]").forEach(e => {
    const act = () => { show(e.dataset.opens); title.scrollIntoView({block: "start"}); };
    e.onclick = act;
    e.onkeydown = event => { if (event.key === "Enter" || event.key === " ") { act(); event.preventDefault(); } };
  });
}

// A large graph: a line, a box of the folded graph or a spot of the raster opens the cone of the nearest node kept.
function overview(data) {
  const cone = document.getElementById("cone");
  function open(group, position) {
    let best = null;
    data.cones.forEach(c => {
      const far = (c.group === group ? 0 : 2 * data.n) + (position === undefined ? 0 : Math.abs(c.position - position));
      if (!best || far < best.far) best = {far, c};
    });
    if (!best) return;
    const about = document.getElementById("cone-of");
    about.textContent = `Node ${best.c.position} of ${data.n}${best.c.where ? ", " + best.c.where : ""}: ${best.c.cut}`;
    film(cone, best.c.film);
    about.scrollIntoView({block: "start"});
  }
  document.querySelectorAll("[data-group]").forEach(e => {
    e.onclick = () => open(+e.dataset.group);
    e.onkeydown = event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      open(+e.dataset.group);
      event.preventDefault();
    };
  });
  document.querySelectorAll("img[data-raster]").forEach(img => {
    const note = img.parentElement.querySelector(".spot"), what = img.dataset.raster;
    const spot = event => {
      const box = img.getBoundingClientRect();
      const x = Math.min(0.999999, Math.max(0, (event.clientX - box.left) / box.width));
      const y = Math.min(0.999999, Math.max(0, (event.clientY - box.top) / box.height));
      return [Math.floor(x * data.n), y];
    };
    const group = y => data.order[Math.min(data.order.length - 1, Math.floor(y * data.order.length))];
    img.onmousemove = event => {
      const [x, y] = spot(event);
      note.textContent = `position ${x}: ` + (what === "nodes" ? data.groups[group(y)]
        : `reads from ${Math.round(2 ** (y * data.octaves))} nodes before`);
    };
    img.onclick = event => { const [x, y] = spot(event); open(what === "nodes" ? group(y) : -1, x); };
  });
  if (data.cones.length) open(data.cones[0].group, data.cones[0].position);
}
