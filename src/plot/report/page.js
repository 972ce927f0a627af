// Draws the charts of a run report from the data in the page. No libraries, no network; text goes
// in through textContent alone, so names cannot become markup.
"use strict";
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const host = document.getElementById("charts");
  if (!host || !D.from.length) return;
  const SVG = "http://www.w3.org/2000/svg";
  const N = D.from.length;
  const el = (name, attributes = {}, text) => {
    const svg = ["svg", "g", "path", "line", "text", "rect", "circle", "title", "defs", "pattern"].includes(name);
    const e = svg ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    if (text !== undefined) e.textContent = text;
    return e;
  };
  // A bucket's [mean, low, high]; one number stands for all three.
  const mean = (v) => (Array.isArray(v) ? v[0] : v);
  const low = (v) => (Array.isArray(v) ? v[1] : v);
  const high = (v) => (Array.isArray(v) ? v[2] : v);

  const trim = (t) => (t.includes(".") ? t.replace(/0+$/, "").replace(/\.$/, "") : t);
  const tokens = (v) => {
    for (const [unit, scale] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]])
      if (Math.abs(v) >= scale * 0.9995) return trim((v / scale).toPrecision(3)) + unit;
    return trim(v < 1 ? v.toPrecision(2) : v.toFixed(v < 10 ? 2 : 0));
  };
  const plain = (v) => {
    if (v === 0) return "0";
    const a = Math.abs(v);
    if (a < 1e-3 || a >= 1e6) return v.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
    return trim(v.toPrecision(4));
  };
  const length = (v) => (v >= 1024 && v % 1024 === 0 ? v / 1024 + "Ki" : String(Math.round(v)));
  const percent = (v) => trim((100 * v).toPrecision(3)) + "%";

  // The token axis: piecewise linear, so that short stages stay visible; one stage alone is linear.
  let range = -1;
  const between = (knots, from, to) => (v) => {
    let i = 1;
    while (i < knots.length - 1 && v > knots[i][from]) i++;
    const a = knots[i - 1], b = knots[i];
    return a[to] + ((b[to] - a[to]) * (v - a[from])) / (b[from] - a[from] || 1);
  };
  const axis = () => {
    const s = D.stages[range];
    const knots = s ? [[s.from, 0], [s.to, 1]] : D.axis;
    return { to: between(knots, 0, 1), back: between(knots, 1, 0), start: knots[0][0], end: knots[knots.length - 1][0] };
  };
  const shown = () => {
    const all = [];
    for (let i = 0; i < N; i++) if (range < 0 || D.stage[i] === range) all.push(i);
    return all;
  };

  // Centred mean over buckets of one stage, narrower near its ends: smooth without lagging behind.
  const smoothed = (values, on) => {
    const means = values.map(mean);
    if (!on) return means;
    const half = Math.max(1, Math.min(12, Math.round(N / 90)));
    return means.map((m, i) => {
      if (m === null || m === undefined) return null;
      let sum = m, n = 1;
      for (let j = 1; j <= half; j++) {
        const a = i - j, b = i + j;
        if (a < 0 || b >= N || D.stage[a] !== D.stage[i] || D.stage[b] !== D.stage[i]) break;
        const weight = 1 - (j / (half + 1)) ** 2;
        for (const v of [means[a], means[b]]) if (v !== null && v !== undefined) { sum += weight * v; n += weight; }
      }
      return sum / n;
    });
  };
  // Shares over a window of buckets: single steps have too few rows to show a share.
  const windowed = (parts) => {
    const half = Math.max(1, Math.round(N / 160));
    return parts.map((p) => p.map((_, i) => {
      let sum = 0, n = 0;
      for (let j = Math.max(0, i - half); j <= Math.min(N - 1, i + half); j++)
        if (D.stage[j] === D.stage[i] && p[j] !== null) { sum += p[j]; n++; }
      return n ? sum / n : null;
    }));
  };

  const sourceColour = (i) => D.sources[i].colour;
  // Areas take the plain colours; lines are drawn towards the ink, so that none fades into the page.
  const mixes = window.CSS && CSS.supports("color", "color-mix(in srgb, red 50%, blue)");
  const lineColour = (colour) => (mixes && colour[0] === "#" ? `color-mix(in srgb, ${colour} 74%, var(--ink))` : colour);
  const dash = (i) => (D.sources[i].hatched ? "5 3" : "");
  const hidden = new Set();
  const names = D.sources.map((s) => s.name);
  const lossOf = D.sourceLoss.map((values, i) => ({ name: names[i], values, colour: lineColour(sourceColour(i)), dash: dash(i), id: "s" + i }));
  const rank = (name) => (names.includes(name) ? names.indexOf(name) : names.length);
  const evalNames = [...new Set(D.evals.map((e) => e.name))].sort((a, b) => rank(a) - rank(b)).slice(0, 40);
  const evalLook = (name) => {
    const i = names.indexOf(name);
    return i < 0 ? { colour: "#888888", dash: "2 2", id: "e" + name } : { colour: lineColour(sourceColour(i)), dash: dash(i), id: "s" + i };
  };

  const charts = [
    { title: "Training loss", unit: "nats", full: true, height: 260, band: true, smooth: true, raw: true, format: plain, robust: true,
      series: [{ name: "loss", values: D.loss, colour: "var(--line)" }] },
    { title: "Training loss by source", unit: "nats", height: 230, smooth: true, format: plain, legend: true, robust: true,
      series: lossOf.filter((s) => s.values.some((v) => v !== null)) },
    { title: "Held-out loss", unit: "nats", height: 230, format: plain, legend: true,
      points: evalNames.map((name) => ({ name, ...evalLook(name), list: D.evals.filter((e) => e.name === name) })) },
    { title: "Learning rate", height: 170, zero: true, format: plain, series: [{ name: "learning rate", values: D.lr, colour: "var(--line)" }] },
    { title: "Gradient norm", unit: "before clipping, log scale", height: 170, band: true, smooth: true, log: 10, format: plain,
      series: [{ name: "gradient norm", values: D.grad, colour: "var(--line)" }] },
    { title: "Batch", unit: "tokens per step", height: 170, zero: true, stairs: true, format: tokens, series: [{ name: "batch", values: D.batch, colour: "var(--line)" }] },
    { title: "Context", unit: "tokens per row, log scale", height: 170, log: 2, stairs: true, format: length, series: [{ name: "context", values: D.context, colour: "var(--line)" }] },
    { title: "Mixture planned", unit: "share of tokens", height: 200, stack: D.planned, format: percent },
    { title: "Mixture read", unit: "share of tokens, running mean", height: 200, stack: windowed(D.read), format: percent },
    { title: "Throughput", unit: "tokens per second", full: true, height: 150, zero: true, band: true, smooth: true, format: tokens,
      series: [{ name: "tokens per second", values: D.speed, colour: "var(--line)" }] },
  ].filter((c) => c.stack || (c.points ? c.points.length : c.series.some((s) => s.values.some((v) => v !== null))));

  const niceTicks = (a, b, count) => {
    const rough = (b - a) / count || 1;
    const magnitude = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * magnitude).find((s) => s >= rough);
    const ticks = [];
    for (let t = Math.ceil(a / step - 1e-9) * step; t <= b + step * 1e-9; t += step) ticks.push(Math.abs(t) < step * 1e-9 ? 0 : t);
    return ticks;
  };

  // Value range, without letting the first steps of a fresh model flatten everything after them.
  const extent = (c, rows, lines) => {
    const all = [];
    lines.forEach((line, k) => rows.forEach((i) => {
      if (line[i] === null || line[i] === undefined) return;
      all.push(line[i]);
      if (c.band) { const v = c.series[k].values[i]; all.push(low(v), high(v)); }
    }));
    if (c.points) for (const p of c.points) for (const e of p.list) if (!hidden.has(p.id) && (range < 0 || e.stage === range)) all.push(e.value);
    const usable = all.filter((v) => !c.log || v > 0).sort((a, b) => a - b);
    if (!usable.length) return [c.log ? 1 : 0, c.log ? 2 : 1];
    let a = usable[0], b = usable[usable.length - 1];
    if (c.robust && usable.length > 60) {
      const most = usable[Math.floor(usable.length * 0.985)];
      if (b > most + 1.2 * (most - a)) b = most + 0.35 * (most - a);
    }
    if (c.zero) a = 0;
    if (c.log) return a === b ? [a / 1.6, b * 1.6] : [a / 1.1, b * 1.1];
    if (a === b) return [a - Math.abs(a) * 0.05 - 1e-9, b + Math.abs(b) * 0.05 + 1e-9];
    return [c.zero ? 0 : a - 0.04 * (b - a), b + 0.06 * (b - a)];
  };

  let cursor = null;
  const draw = (c) => {
    const svg = c.svg, W = Math.max(260, svg.clientWidth || svg.parentNode.clientWidth - 26), H = c.height;
    const left = 50, right = W - 10, top = 18, bottom = H - 20;
    const ax = axis(), rows = shown(), smooth = document.getElementById("smooth").checked;
    const X = (t) => left + (right - left) * ax.to(t);
    c.box = { left, right, top, bottom, ax };
    svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
    svg.setAttribute("height", H);
    svg.replaceChildren();
    const series = (c.series || []).filter((s) => !hidden.has(s.id));
    const view = { ...c, series };
    const lines = series.map((s) => smoothed(s.values, c.smooth && smooth));
    c.lines = lines; c.visible = series;
    const [a, b] = c.stack ? [0, 1] : extent(view, rows, lines);
    const scale = c.log ? Math.log : (v) => v;
    const Y = (v) => bottom - ((bottom - top) * (scale(Math.min(Math.max(v, a), b)) - scale(a))) / (scale(b) - scale(a) || 1);
    // Grid.
    let ticks;
    if (c.stack) ticks = [0, 0.5, 1];
    else if (c.log === 2) ticks = [...new Set(rows.map((i) => mean(D.context[i])))].sort((p, q) => p - q);
    else if (c.log) {
      ticks = [];
      for (let e = Math.floor(Math.log10(a)); e <= Math.ceil(Math.log10(b)); e++) for (const m of [1, 2, 5]) ticks.push(m * 10 ** e);
      ticks = ticks.filter((t) => t >= a && t <= b);
      if (ticks.length > 6) ticks = ticks.filter((t) => Math.abs(Math.log10(t) % 1) < 1e-9);
      // A range between two of them has round numbers, too.
      if (ticks.length < 2) ticks = niceTicks(a, b, (bottom - top) / 48);
    } else ticks = niceTicks(a, b, (bottom - top) / 48);
    let lastY = Infinity;
    for (const t of ticks) {
      const y = Y(t);
      svg.append(el("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
      if (lastY - y > 11) { svg.append(el("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, c.format(t))); lastY = y; }
    }
    // Stage edges with names.
    let free = -Infinity;
    D.stages.forEach((s, i) => {
      if (range >= 0 && range !== i) return;
      const x0 = X(s.from), x1 = X(s.to);
      if (range < 0 && i > 0 && D.stages.length < 60) svg.append(el("line", { class: "edge", x1: x0, x2: x0, y1: top - 12, y2: bottom }));
      const room = Math.floor((x1 - x0 - 6) / 6.2);
      if (room >= 4 && x0 >= free) {
        svg.append(el("text", { x: x0 + 4, y: top - 6 }, s.name.length > room ? s.name.slice(0, room - 1) + "…" : s.name));
        free = x1;
      }
    });
    // Token labels.
    const marks = range < 0 ? D.axis.map((k) => k[0]) : [ax.start, ax.end];
    const base = D.stages[range] ? D.stages[range].from : 0;
    const positions = [marks[0], marks[marks.length - 1], ...marks.slice(1, -1), ...niceTicks(ax.start, ax.end, W / 110)];
    const taken = [];
    for (const t of positions) {
      const x = X(t), text = tokens(range < 0 ? t : t - base), half = text.length * 3.4 + 5;
      if (taken.some(([p, q]) => x + half > p && x - half < q)) continue;
      taken.push([x - half, x + half]);
      svg.append(el("text", { x: Math.min(x, W - half + 2), y: H - 5, "text-anchor": "middle" }, text));
    }
    // Data.
    const middle = (i) => (D.from[i] + D.to[i]) / 2;
    const pathOf = (value, stairs) => {
      let d = "", pen = false, stage = -1;
      for (const i of rows) {
        const v = value(i);
        if (v === null || v === undefined || (c.log && v <= 0)) { pen = false; continue; }
        if (D.stage[i] !== stage) { pen = false; stage = D.stage[i]; }
        const y = Y(v).toFixed(1);
        if (stairs) d += `${pen ? "L" : "M"}${X(D.from[i]).toFixed(1)} ${y}L${X(D.to[i]).toFixed(1)} ${y}`;
        else d += `${pen ? "L" : "M"}${X(middle(i)).toFixed(1)} ${y}`;
        pen = true;
      }
      return d;
    };
    if (c.stack) {
      const sums = new Map(rows.map((i) => [i, 0]));
      c.stack.forEach((part, k) => {
        const pieces = [];
        let piece = null, stage = -1;
        for (const i of rows) {
          const v = part[i], base = sums.get(i);
          if (v === null) { piece = null; continue; }
          if (!piece || D.stage[i] !== stage) { pieces.push((piece = [])); stage = D.stage[i]; }
          piece.push([X(D.from[i]), base, base + v], [X(D.to[i]), base, base + v]);
          sums.set(i, base + v);
        }
        const d = pieces.map((p) => {
          const up = p.map(([x, , t]) => `${x.toFixed(1)} ${Y(t).toFixed(1)}`);
          const down = p.map(([x, f]) => `${x.toFixed(1)} ${Y(f).toFixed(1)}`).reverse();
          return "M" + up.concat(down).join("L") + "Z";
        }).join("");
        svg.append(el("path", { d, fill: sourceColour(k) }));
        if (D.sources[k].hatched) svg.append(el("path", { d, fill: "url(#hatch)" }));
      });
    }
    series.forEach((s, k) => {
      if (c.band) {
        let d = "", run = [];
        const flush = () => {
          if (run.length > 1) d += "M" + run.map((i) => `${X(middle(i)).toFixed(1)} ${Y(high(s.values[i])).toFixed(1)}`)
            .concat(run.slice().reverse().map((i) => `${X(middle(i)).toFixed(1)} ${Y(low(s.values[i])).toFixed(1)}`)).join("L") + "Z";
          run = [];
        };
        for (const i of rows) {
          if (s.values[i] === null || (run.length && D.stage[i] !== D.stage[run[0]])) flush();
          if (s.values[i] !== null) run.push(i);
        }
        flush();
        svg.append(el("path", { d, style: "fill:var(--band)" }));
      }
      if (c.raw && smooth) svg.append(el("path", { d: pathOf((i) => mean(s.values[i])), style: `fill:none;stroke:${s.colour}`, "stroke-width": 1, opacity: 0.3 }));
      svg.append(el("path", { d: pathOf((i) => lines[k][i], c.stairs), style: `fill:none;stroke:${s.colour}`, "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-dasharray": s.dash || "none" }));
    });
    for (const p of c.points || []) {
      if (hidden.has(p.id)) continue;
      let d = "", stage = -1;
      for (const e of p.list) {
        if (range >= 0 && e.stage !== range) continue;
        const x = X(e.x).toFixed(1), y = Y(e.value).toFixed(1);
        d += `${e.stage === stage ? "L" : "M"}${x} ${y}`;
        stage = e.stage;
        const dot = el("circle", { cx: x, cy: y, r: 2.6, style: `fill:${p.colour}` });
        svg.append(dot);
      }
      svg.append(el("path", { d, style: `fill:none;stroke:${p.colour}`, "stroke-width": 1.6, "stroke-dasharray": p.dash || "none" }));
    }
    if (c.title === "Training loss")
      for (const i of rows) if (D.bad[i]) {
        const mark = el("path", { d: `M${X(middle(i)).toFixed(1)} ${top}l-4 -6h8z`, style: "fill:var(--bad)" });
        mark.append(el("title", {}, `${D.bad[i]} skipped`));
        svg.append(mark);
      }
    c.cursor = el("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
    svg.append(c.cursor);
  };

  const bucketAt = (t) => {
    let best = -1, distance = Infinity;
    for (const i of shown()) {
      const d = t < D.from[i] ? D.from[i] - t : t > D.to[i] ? t - D.to[i] : 0;
      if (d < distance) { best = i; distance = d; }
    }
    return best;
  };
  const said = (c, i) => {
    const out = [];
    if (c.stack) c.stack.forEach((p, k) => { if (p[i]) out.push([names[k], percent(p[i]), sourceColour(k)]); });
    (c.visible || []).forEach((s, k) => {
      const v = s.values[i];
      if (v === null || v === undefined) return;
      out.push([s.name, c.format(mean(v)), s.colour]);
      if (c.series.length === 1) {
        if (Array.isArray(v)) out.push(["least to greatest", `${c.format(v[1])} to ${c.format(v[2])}`]);
        if (c.smooth && document.getElementById("smooth").checked) out.push(["smoothed", c.format(c.lines[k][i])]);
      }
    });
    for (const p of c.points || []) {
      if (hidden.has(p.id)) continue;
      const near = p.list.filter((e) => e.stage === D.stage[i]).reduce((m, e) => {
        const d = Math.abs(e.x - D.to[i]);
        return !m || d < m.d ? { e, d } : m;
      }, null);
      if (near) out.push([p.name, c.format(near.e.value), p.colour]);
    }
    if (c.stack || (c.series || []).length > 1) out.length = Math.min(out.length, 14);
    return out;
  };
  const point = (c, i) => {
    cursor = i;
    for (const other of charts) {
      if (!other.cursor) continue;
      const x = other.box.left + (other.box.right - other.box.left) * other.box.ax.to((D.from[i] + D.to[i]) / 2);
      other.cursor.setAttribute("x1", x);
      other.cursor.setAttribute("x2", x);
      other.cursor.setAttribute("visibility", "visible");
      other.tip.style.display = "none";
    }
    const s = D.stages[D.stage[i]];
    const steps = D.first[i] === D.last[i] ? `step ${D.first[i]}` : `steps ${D.first[i]} to ${D.last[i]}`;
    c.tip.replaceChildren(el("span", { class: "head" }, `${s.name}, ${steps}, at ${tokens(D.from[i] - s.from)} tokens`));
    for (const [name, value, colour] of said(c, i)) {
      const row = el("div"), label = el("span", {}, name);
      if (colour) { const key = el("i", { class: "key" }); key.style.background = colour; label.prepend(key); }
      row.append(label, el("span", {}, value));
      c.tip.append(row);
    }
    c.tip.style.display = "block";
    const x = parseFloat(c.cursor.getAttribute("x1")), room = c.figure.clientWidth;
    const wide = c.tip.offsetWidth;
    c.tip.style.left = Math.max(4, x + 28 + wide > room ? x - wide - 4 : x + 24) + "px";
    c.tip.style.top = "44px";
    c.svg.setAttribute("aria-label", `${c.title}. ${s.name}, ${steps}: ` + said(c, i).map(([n, v]) => `${n} ${v}`).join(", "));
  };
  const leave = () => {
    cursor = null;
    for (const c of charts) { if (c.cursor) c.cursor.setAttribute("visibility", "hidden"); c.tip.style.display = "none"; }
  };

  for (const c of charts) {
    c.figure = el("figure", { class: "chart" + (c.full ? " full" : "") });
    const caption = el("figcaption", {}, c.title);
    if (c.unit) caption.append(el("small", {}, c.unit));
    c.svg = el("svg", { role: "img", tabindex: 0, "aria-label": c.title + "; arrow keys read values" });
    c.tip = el("div", { class: "tip", role: "status" });
    c.figure.append(caption, c.svg, c.tip);
    const keys = c.legend ? (c.series || c.points) : c.stack ? D.sources.map((s, i) => ({ name: s.name, colour: s.colour, fixed: true })) : [];
    if (keys.length) {
      const legend = el("div", { class: "legend" });
      for (const s of keys) {
        const b = el(s.fixed ? "span" : "button", s.fixed ? { class: "small" } : { type: "button", "aria-pressed": "true" }, s.name);
        b.title = s.name;
        const key = el("i", { class: "key" });
        key.style.background = s.dash ? `repeating-linear-gradient(90deg, ${s.colour} 0 5px, transparent 5px 8px)` : s.colour;
        b.prepend(key);
        if (!s.fixed) {
          b.dataset.id = s.id;
          b.addEventListener("click", () => {
            hidden.has(s.id) ? hidden.delete(s.id) : hidden.add(s.id);
            for (const other of host.querySelectorAll("button[data-id]")) other.setAttribute("aria-pressed", String(!hidden.has(other.dataset.id)));
            charts.forEach(draw);
          });
        }
        legend.append(b);
      }
      c.figure.append(legend);
    }
    const at = (event) => {
      const r = c.svg.getBoundingClientRect();
      const scale = (c.svg.viewBox.baseVal.width || r.width) / r.width;
      const share = ((event.clientX - r.left) * scale - c.box.left) / (c.box.right - c.box.left);
      const i = bucketAt(c.box.ax.back(Math.min(1, Math.max(0, share))));
      if (i >= 0) point(c, i);
    };
    c.svg.addEventListener("pointermove", at);
    c.svg.addEventListener("pointerdown", at);
    c.svg.addEventListener("pointerleave", leave);
    c.svg.addEventListener("blur", leave);
    c.svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity }[event.key];
      if (move === undefined) { if (event.key === "Escape") leave(); return; }
      event.preventDefault();
      const all = shown();
      if (!all.length) return;
      const now = Math.max(0, cursor === null ? 0 : all.indexOf(cursor));
      point(c, all[Math.min(all.length - 1, Math.max(0, now + move))]);
    });
    host.append(c.figure);
  }
  // Hatching of sources whose colour comes a second time.
  const hatch = el("svg", { width: 0, height: 0, "aria-hidden": "true", style: "position:absolute" });
  const pattern = el("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(el("rect", { width: 2, height: 6, fill: "#fff", "fill-opacity": 0.55 }));
  hatch.append(el("defs"));
  hatch.firstChild.append(pattern);
  document.body.append(hatch);

  const select = document.getElementById("range");
  select.append(el("option", { value: -1 }, "the whole run"));
  D.stages.forEach((s, i) => { if (D.stage.includes(i)) select.append(el("option", { value: i }, s.name)); });
  select.addEventListener("change", () => { range = Number(select.value); leave(); charts.forEach(draw); });
  document.getElementById("smooth").addEventListener("change", () => charts.forEach(draw));
  const widest = D.first.reduce((m, f, i) => Math.max(m, D.last[i] - f + 1), 1);
  document.getElementById("resolution").textContent =
    (D.stages.length > 1 ? "Stages lie end to end in the order of the plan; short ones are drawn wider than their share. " : "") +
    (widest > 1 ? `A point stands for up to ${widest} steps: the line is their mean, the band their least and greatest value.` : "Every step is a point.");
  let width = 0;
  new ResizeObserver(() => { if (host.clientWidth !== width) { width = host.clientWidth; charts.forEach(draw); } }).observe(host);
})();
