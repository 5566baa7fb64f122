"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const figure = document.getElementById("picture");
  if (!figure || !data.trials.length) return;

  // Text from the run enters by textContent and attributes alone, never as markup.
  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const html = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const svg = (name, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  const byNumber = new Map(data.trials.map((trial) => [trial.number, trial]));
  const limits = document.getElementById("limits");
  let picked = data.chosen ?? data.trials[0].number;

  // ---- axes
  const steps = (low, high, n) => {
    const rough = (high - low) / n || 1;
    const size = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * size).find((one) => one >= rough);
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
    return found;
  };
  const decades = (low, high) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
      for (const factor of [1, 2, 5]) found.push(factor * 10 ** power);
    return found.filter((at) => at >= low && at <= high);
  };
  const written = (value) => String(Number(value.toPrecision(4)));
  const widened = (low, high, share) => {
    const room = (high - low) * share || Math.abs(high) * 0.1 || 1;
    return [low - room, high + room];
  };
  const linear = (domain, range) => (value) =>
    range[0] + ((value - domain[0]) / (domain[1] - domain[0])) * (range[1] - range[0]);
  const logarithmic = (domain, range) => {
    const inner = linear(domain.map(Math.log), range);
    return (value) => inner(Math.log(value));
  };
  const frame = (width, height, xs, ys, names, x, y) => {
    const { left, right, top, bottom } = names;
    const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": names.label });
    for (const at of ys) {
      drawn.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }));
      drawn.append(svg("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, written(at)));
    }
    for (const at of xs) {
      drawn.append(svg("line", { class: "grid", y1: top, y2: height - bottom, x1: x(at), x2: x(at) }));
      drawn.append(svg("text", { x: x(at), y: height - bottom + 16, "text-anchor": "middle" }, written(at)));
    }
    drawn.append(svg("text", { x: left, y: top - 8 }, names.up));
    drawn.append(svg("text", { x: width - right, y: height - 4, "text-anchor": "end" }, names.along));
    return drawn;
  };

  // ---- the front
  const tip = html("div", { class: "tip", role: "tooltip", hidden: "" });
  const shape = (trial, x, y) => {
    if (trial.clipped) return svg("path", { class: "mark", d: `M${x - 6} ${y - 9}h12l-6 9z` });
    if (trial.frozen) return svg("circle", { class: "mark", cx: x, cy: y, r: 5 });
    return svg("path", { class: "mark", d: `M${x} ${y - 6.5}l6.5 6.5l-6.5 6.5l-6.5 -6.5z` });
  };
  const point = (trial, x, y) => {
    const kinds = ["point", trial.colour, trial.frozen && "frozen", trial.number === data.chosen && "chosen"];
    const drawn = svg(
      "g",
      { class: kinds.filter(Boolean).join(" "), "data-trial": trial.number, tabindex: 0, role: "button", "aria-label": trial.line },
      svg("circle", { class: "halo", cx: x, cy: y, r: 13 }),
      svg("circle", { class: "ring", cx: x, cy: y, r: 10.5 }),
      shape(trial, x, y),
      svg("circle", { class: "area", cx: x, cy: y, r: 12 }),
    );
    const show = () => {
      tip.textContent = trial.line;
      tip.hidden = false;
      const scale = figure.querySelector("svg").getBoundingClientRect().width / figure.querySelector("svg").viewBox.baseVal.width;
      const half = tip.offsetWidth / 2;
      tip.style.left = `${Math.min(Math.max(x * scale, half), Math.max(figure.clientWidth - half, half))}px`;
      tip.style.top = `${y * scale}px`;
    };
    const hide = () => { tip.hidden = true; };
    drawn.addEventListener("pointerenter", show);
    drawn.addEventListener("pointerleave", hide);
    drawn.addEventListener("focus", show);
    drawn.addEventListener("blur", hide);
    drawn.addEventListener("click", () => pick(trial.number));
    drawn.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(trial.number); }
    });
    return drawn;
  };
  const drawFront = () => {
    const width = Math.max(300, Math.round(figure.clientWidth || 640)), height = Math.round(Math.min(440, 170 + width * 0.45));
    const room = { left: 52, right: 14, top: 26, bottom: 40, label: data.axis.caption, up: data.axis.up, along: data.axis.along };
    const latencies = data.trials.map((trial) => trial.latency_ms);
    const ends = data.trials.flatMap((trial) => trial.reach_ms ?? []);
    const low = Math.min(...latencies, ...ends), high = Math.max(...latencies, ...ends);
    const isLog = high / low > 3;
    const across = isLog ? [low / (high / low) ** 0.06, high * (high / low) ** 0.06] : widened(low, high, 0.08);
    const x = (isLog ? logarithmic : linear)(across, [room.left, width - room.right]);
    const shownAt = (trial) => (trial.clipped ? data.floor : trial.height);
    const heights = data.trials.flatMap((trial) => [shownAt(trial), ...(trial.tested ?? [])]);
    const up = widened(Math.min(...heights), Math.max(...heights), 0.08);
    if (!data.axis.higher) up.reverse();
    const y = linear(up, [height - room.bottom, room.top]);
    const xs = isLog && decades(...across).length > 2 ? decades(...across) : steps(...across, width / 90);
    const drawn = frame(width, height, xs, steps(Math.min(...up), Math.max(...up), height / 60), room, x, y);
    const corners = data.steps.map(([at, score], place) => `${place ? `H${x(at)}V` : `M${x(at)} `}${y(score)}`);
    if (corners.length) drawn.append(svg("path", { class: "step", d: `${corners.join("")}H${width - room.right}` }));
    for (const trial of data.trials) if (trial.reach_ms) {
      const [from, to] = trial.reach_ms.map(x), at = y(shownAt(trial));
      drawn.append(svg("path", { class: "reach noise", d: `M${from} ${at}H${to}M${from} ${at - 4}v8M${to} ${at - 4}v8` }));
    }
    for (const trial of data.trials) if (trial.tested) {
      const [, from, to] = trial.tested.map(y), at = x(trial.latency_ms);
      drawn.append(svg("path", { class: "reach", d: `M${at} ${from}V${to}M${at - 4} ${from}h8M${at - 4} ${to}h8M${at - 4} ${y(trial.tested[0])}h8` }));
    }
    for (const trial of data.trials.filter((one) => !one.front)) drawn.append(point(trial, x(trial.latency_ms), y(shownAt(trial))));
    for (const trial of data.trials.filter((one) => one.front)) drawn.append(point(trial, x(trial.latency_ms), y(shownAt(trial))));
    // Its role would hide the points in it from those who cannot see them.
    drawn.setAttribute("role", "group");
    const legend = html("ul", { class: "legend" });
    for (const [name, colour] of data.groups) legend.append(html("li", { class: colour }, html("span", { class: "swatch" }), name));
    legend.append(html("li", {}, data.axis.legend));
    figure.replaceChildren(drawn, tip, legend);
  };

  // ---- one trial
  const curve = (told) => {
    const width = 360, height = 220, room = { left: 52, right: 12, top: 26, bottom: 36, up: data.axis.curve, along: "epoch", label: "learning curve" };
    const known = [...told.validation, ...told.train].filter((value) => value !== null);
    const n = Math.max(told.validation.length, told.train.length);
    const x = linear(n > 1 ? [1, n] : [0, 2], [room.left, width - room.right]);
    const up = widened(Math.min(...known), Math.max(...known), 0.08);
    if (!data.axis.higher) up.reverse();
    const y = linear(up, [height - room.bottom, room.top]);
    const whole = n > 1 ? steps(1, n, 6).filter(Number.isInteger) : [1];
    const drawn = frame(width, height, whole, steps(Math.min(...up), Math.max(...up), 4), room, x, y);
    for (const kind of ["train", "validation"]) {
      let isBegun = false;
      const path = told[kind].map((value, place) => {
        if (value === null) return "";
        const at = `${isBegun ? "L" : "M"}${x(place + 1)} ${y(value)}`;
        isBegun = true;
        return at;
      });
      drawn.append(svg("path", { class: `curve ${kind}`, d: path.join("") }));
      told[kind].forEach((value, place) => {
        if (value !== null) drawn.append(svg("circle", { class: "dot", cx: x(place + 1), cy: y(value), r: 2.5 }));
      });
    }
    return html("div", {}, html("h3", {}, "Learning curve"), drawn,
      html("p", { class: "quiet" }, "solid: validation; dashed: training pictures as they passed"));
  };
  const where = { validation: "validation pictures", test: "test pictures, which the search has not seen", folds: "training and validation pictures, by folds" };
  const taken = (told) => `What is taken for what (${{ folds: "by folds" }[told.part] ?? told.part})`;
  const headed = (told, title, ...children) => html("div", {}, html("h3", {}, title), html("p", { class: "quiet" }, `${told.n} ${where[told.part]}`), ...children);
  const matrix = (told) => {
    const head = html("tr", {}, html("td", {}), ...data.classes.map((name) => html("th", { scope: "col", title: name }, name)));
    const body = told.matrix.map((row, is) => {
      const all = row.reduce((sum, n) => sum + n, 0);
      const cells = row.map((n, said) => {
        const cell = html("td", { class: n ? (is === said ? "right" : "wrong") : "none" }, String(n));
        cell.style.setProperty("--share", all ? n / all : 0);
        return cell;
      });
      return html("tr", {}, html("th", { scope: "row", title: data.classes[is] }, data.classes[is]), ...cells);
    });
    return headed(told, taken(told), html("div", { class: "wide" }, html("table", { class: "matrix" },
      html("caption", {}, "a row for each class, a column for each that is said"), html("thead", {}, head), html("tbody", {}, ...body))));
  };
  const table = (head, rows) => html("div", { class: "wide" }, html("table", {},
    html("thead", {}, html("tr", {}, ...head.map((name, place) => html("th", { scope: "col", class: place ? "number" : "" }, name)))),
    html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((cell, place) => html("td", { class: place ? "number" : "" }, String(cell))))))));
  const pairs = (told) => headed(told, taken(told), told.pairs.length
    ? table(["is", "is said", "pictures", "of"], told.pairs) : html("p", {}, "Nothing is taken for anything else."));
  const labels = (told) => headed(told, "Label by label", table(["label", "pictures", "precision", "recall", "average precision"], told.labels));
  const scatter = (told, target) => {
    const width = 320, height = 300, room = { left: 56, right: 12, top: 26, bottom: 38, up: `predicted ${target.name}`, along: "true", label: "predicted against true" };
    const all = target.points.flat(), ends = widened(Math.min(...all), Math.max(...all), 0.05);
    const x = linear(ends, [room.left, width - room.right]), y = linear(ends, [height - room.bottom, room.top]);
    const drawn = frame(width, height, steps(...ends, 4), steps(...ends, 5), room, x, y);
    drawn.append(svg("line", { class: "truth", x1: x(ends[0]), y1: y(ends[0]), x2: x(ends[1]), y2: y(ends[1]) }));
    for (const [is, said] of target.points) drawn.append(svg("circle", { class: "dot", cx: x(is), cy: y(said), r: 3 }));
    return headed(told, `Predicted against true: ${target.name}`, drawn, html("p", { class: "quiet" }, target.caption));
  };
  const closely = (trial) => {
    const parts = trial.curve ? [curve(trial.curve)] : [];
    for (const told of trial.close ?? []) {
      if (told.matrix) parts.push(matrix(told));
      if (told.pairs) parts.push(pairs(told));
      if (told.labels) parts.push(labels(told));
      for (const target of told.numbers ?? []) parts.push(scatter(told, target));
    }
    if (!trial.close) parts.push(html("p", { class: "note" }, "What this trial predicted is not in this page, which is kept small: the chosen trial, the front and the best others are."));
    else if (!trial.close.length) parts.push(html("p", { class: "note" }, "What this trial predicted is not in the run folder."));
    return parts;
  };
  const pick = (number) => {
    picked = number;
    const trial = byNumber.get(number);
    const rows = trial.rows.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value)));
    const marks = [trial.number === data.chosen && "chosen", trial.front && "on the front"].filter(Boolean);
    const title = html("h3", {}, `Trial ${trial.number}`, ...marks.map((mark) => html("span", { class: "mark" }, mark)));
    document.getElementById("panel").replaceChildren(title, html("dl", {}, ...rows));
    document.getElementById("closely").replaceChildren(...closely(trial));
    show();
  };

  // ---- limits
  const keeps = (trial) => ["latency_ms", "n_params", "megabytes"].every((name) => {
    const limit = limits.elements[name].valueAsNumber * (name === "n_params" ? 1e6 : 1);
    return Number.isNaN(limit) || (trial[name] !== null && trial[name] <= limit);
  });
  const show = () => {
    const inside = data.trials.filter(keeps);
    const numbers = new Set(inside.map((trial) => trial.number));
    for (const node of document.querySelectorAll("[data-trial]")) {
      const number = Number(node.dataset.trial);
      node.classList.toggle("out", byNumber.has(number) && !numbers.has(number));
      node.classList.toggle("picked", number === picked);
    }
    const best = inside.reduce((top, trial) => (!top || trial.rank < top.rank ? trial : top), null);
    document.getElementById("within").textContent = inside.length === data.trials.length ? ""
      : best ? `${inside.length} of ${data.trials.length} trials keep these limits; the best score of them: ${best.line}`
      : `none of ${data.trials.length} trials keeps these limits`;
  };

  limits.addEventListener("submit", (event) => event.preventDefault());
  limits.addEventListener("input", show);
  limits.addEventListener("reset", () => setTimeout(show));
  for (const button of document.querySelectorAll("[data-pick]")) button.addEventListener("click", () => pick(Number(button.dataset.pick)));
  let width = 0;
  const redraw = () => {
    if (figure.clientWidth === width) return;
    width = figure.clientWidth;
    drawFront();
    show();
  };
  window.addEventListener("resize", redraw);
  redraw();
  pick(picked);
})();
