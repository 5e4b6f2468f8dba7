// The budget in the browser. The first half is arithmetic.py, line by line; the second half is the page.
"use strict";
const TABLE = JSON.parse(document.getElementById("data").textContent);
const { CONSTANT, SCATTER, WIDE, BIAS, DITHER, NEAR, REASONS, COMPARED, OUTPUTS } = TABLE.constants;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const after = (axis, value) => axis.filter((v) => v <= value).length; // bisect_right
const product = (lists) => lists.reduce((rows, list) => rows.flatMap((row) => list.map((v) => [...row, v])), [[]]);

function place(axis, value) {
  const k = Math.min(after(axis, value) - 1, axis.length - 2);
  return [k, Math.log(value / axis[k]) / Math.log(axis[k + 1] / axis[k])];
}

function interpolated(network, gain, beta) {
  const axes = { "input_gain / target": [TABLE.gains, gain], beta: [TABLE.betas, beta] };
  for (const [name, [axis, value]] of Object.entries(axes))
    if (!(axis[0] <= value && value <= axis.at(-1)))
      throw new Error(`${name} = ${plain(value)}: allowed are ${axis[0]} to ${axis.at(-1)}, those of the table`);
  const [[i, u], [j, v]] = Object.values(axes).map(([axis, value]) => place(axis, value));
  const corners = [[i, j, (1 - u) * (1 - v)], [i, j + 1, (1 - u) * v], [i + 1, j, u * (1 - v)], [i + 1, j + 1, u * v]];
  const used = corners.filter((corner) => corner[2] > 0);
  if (used.some(([a, b]) => network.noise[a][b] === null))
    throw new Error(`beta = ${plain(beta)}: too strong for this network, smaller ones are allowed`);
  const mean = (of) => Math.exp(sum(used.map(([a, b, weight]) => weight * Math.log(of(a, b)))));
  const found = {};
  for (const [key, grid] of Object.entries(network)) {
    if (key === "voltage") found[key] = grid.map((value) => gain * value);
    else if (key === "level") found[key] = grid.map((row) => row.map((value) => gain * value));
    else if (key === "response" || key === "largest_response")
      found[key] = network.voltage.map((_, k) => mean((a, b) => grid[a][b][k]));
    else found[key] = mean((a, b) => grid[a][b]);
  }
  return found;
}

function candidates(design, look) {
  const found = [];
  const keys = ["input_gain", "beta", "learning_rate", "batch_size", "scheme"];
  for (const [gain, beta, rate, batch, scheme] of product(keys.map((key) => design[key]))) {
    if (scheme === "differential" && design.adc_bits === null && design.scheme.length > 1) continue;
    for (const [fit, a, t] of fits(design, look(gain / design.target, beta), gain)) {
      let signals;
      try {
        signals = look(a / t, beta);
      } catch (error) {
        if (fit === "as asked") throw error;
        continue;
      }
      const one = candidate(design, signals, [fit, a, t, beta, rate, batch, scheme]);
      found.push({ ...one, nearest: nearest(design, one) });
    }
  }
  return found;
}

const halfRange = (design) => (design.adc_range === null ? Infinity : design.adc_range / 2);

function fits(design, signals, gain) {
  const target = design.target, half = halfRange(design);
  const largest = target * Math.max(...signals.level.map((level) => level.at(-1)));
  const ofGain = Math.min(1, half / largest), ofTarget = Math.min(1, half / target), both = Math.min(ofGain, ofTarget);
  const found = [["as asked", gain, target]];
  if (both < 1)
    found.push(["gain lowered", gain * ofGain, target * ofTarget], ["all scaled", gain * both, target * both]);
  return found;
}

function candidate(design, signals, [fit, gain, t, beta, rate, batch, scheme]) {
  const half = halfRange(design), g = signals.gradient, n = signals.noise, margin = design.margin;
  const ofBatch = Math.sqrt(g ** 2 + signals.spread ** 2 / batch);
  const layers = signals.level.map((level, k) => ({
    voltage: t * signals.voltage[k], largest: t * level.at(-1), beyond: beyond(level, half / t),
    response: t * signals.response[k],
  }));
  const limit = (t * CONSTANT * Math.sqrt((batch * g * ofBatch) / rate)) / n;
  const low = limit / SCATTER ** WIDE, high = limit * SCATTER ** WIDE;
  const all = [
    ...terms(design, signals, t, scheme),
    term("write noise", (design.write_noise * t * ofBatch * Math.sqrt(batch)) / n, false),
    term("programming noise", (design.programming_noise * t * ofBatch * Math.sqrt(batch)) / (rate * n), false),
  ];
  const squares = (averages) => sum(all.filter((one) => one.averages === averages).map((one) => one.volts ** 2));
  const averaged = squares(true), floor = squares(false);
  for (const one of all)
    one.alone = one.averages ? needed(one.volts ** 2, 0, limit, margin) : needed(0, one.volts ** 2, limit, margin);
  const offset = (design.offset * signals.offset) / (g * t);
  const mismatch = (design.gain_mismatch * signals.gain_mismatch) / g;
  const reads = needed(averaged, floor, limit, margin);
  const largest = Math.max(...layers.map((layer) => layer.largest));
  let reason = "";
  if (!(Math.max(t, largest) <= half * (1 + 1e-9))) reason = "range";
  else if (Math.sqrt(offset ** 2 + mismatch ** 2) > BIAS) reason = "bias";
  else if (reads === null) reason = "floor";
  else if (reads > design.most_reads) reason = "reads";
  const usable = (gain * half) / largest;
  return {
    fit, input_gain: gain, target: t, beta, learning_rate: rate, batch_size: batch, scheme, layers,
    usable_gain: usable < Infinity ? usable : null, limit, limit_low: low, limit_high: high,
    averaged: Math.sqrt(averaged), floor: Math.sqrt(floor),
    margin: averaged + floor ? limit / Math.sqrt(averaged + floor) : null, terms: all, offset, gain_mismatch: mismatch,
    reads, reads_low: needed(averaged, floor, high, margin), reads_high: needed(averaged, floor, low, margin),
    reason, binding: binding(reason, all, offset, mismatch, reads),
  };
}

const term = (name, volts, averages) => ({ name, volts, averages });

function terms(design, signals, t, scheme) {
  const rho = design.correlation, n = signals.noise, half = halfRange(design);
  const own = design.noise * Math.sqrt(1 - rho);
  const found = [
    term("noise", own, true),
    term("noise that reads have in common", design.noise * Math.sqrt(rho), false),
    term("relative noise", (design.relative_noise * t * signals.relative_noise) / n, true),
    term("drift", design.drift / Math.sqrt(2), false),
  ];
  if (design.adc_bits === null) return found;
  const codes = 2 ** design.adc_bits, step = (2 * half) / codes, squared = (signals.mean_noise / n) ** 2;
  if (scheme === "direct")
    return [...found, term("steps of the converter", step / Math.sqrt(12), own >= DITHER * step)];
  const steps = signals.largest_response.slice(0, 2).map((largest) => (2 * t * largest) / codes);
  const fine = Math.sqrt((((steps[0] ** 2 + steps[1] ** 2) / 24) * (1 - squared / 2)) / 2);
  const coarse = (step / Math.sqrt(12)) * Math.sqrt(squared);
  return [
    ...found,
    term("steps of the difference's converter", fine, Math.sqrt(2) * own >= DITHER * Math.max(...steps)),
    term("steps of the mean's converter", coarse, own / Math.sqrt(2) >= DITHER * step),
  ];
}

function needed(averaged, floor, limit, margin) {
  const room = (limit / margin) ** 2 - floor;
  return room > 0 ? Math.max(1, Math.ceil((averaged / room) * (1 - 1e-9))) : null;
}

function beyond(level, half) {
  const shares = TABLE.shares;
  if (half >= level.at(-1)) return 0;
  if (half < level[0]) return shares[0];
  const k = after(level, half) - 1;
  return shares[k] + ((shares[k + 1] - shares[k]) * (half - level[k])) / (level[k + 1] - level[k]);
}

function binding(reason, all, offset, mismatch, reads) {
  if (reason === "range") return "range of the converter";
  if (reason === "bias") return offset >= mismatch ? "offsets" : "gain mismatch";
  const averages = { floor: [false], reads: [true] }[reason] ?? (reads > 1 ? [true] : [true, false]);
  const kept = all.filter((one) => averages.includes(one.averages));
  const largest = kept.reduce((most, one) => (one.volts > most.volts ? one : most));
  return largest.volts > 0 ? largest.name : "nothing";
}

const rank = (one) => [REASONS.indexOf(one.reason), Number(one.nearest === null), one.reads ?? Infinity, one.margin === null ? -Infinity : -one.margin];

function before(a, b) {
  const [first, second] = [rank(a), rank(b)];
  const k = first.findIndex((value, place) => value !== second[place]);
  return k < 0 ? 0 : first[k] - second[k];
}

function nearest(design, chosen) {
  if (chosen.reads === null) return null;
  const t = chosen.target, hidden = design.hidden;
  const own = {
    gain: chosen.input_gain / t, beta: chosen.beta, learning_rate: chosen.learning_rate, batch_size: chosen.batch_size,
    images: design.images, width: Math.exp(sum(hidden.map(Math.log)) / hidden.length), depth: hidden.length,
  };
  const sigma = Math.sqrt(chosen.averaged ** 2 / chosen.reads + chosen.floor ** 2) / t;
  let choice = null;
  for (const sweep of TABLE.sweeps) {
    if (sweep.dataset !== design.dataset || sigma > sweep.sigma.at(-1)) continue;
    const distance = Math.sqrt(sum(COMPARED.map((key) => Math.log10(own[key] / sweep[key]) ** 2)));
    if (distance <= NEAR && (choice === null || distance < choice.distance - 1e-9)) {
      const at = (key) => along(sweep.sigma, sweep[key], sigma);
      choice = { error: at("error"), low: at("low"), high: at("high"), distance, store: sweep.store, n: sweep.n, sigma };
    }
  }
  return choice;
}

function along(sigmas, values, sigma) {
  if (sigma <= sigmas[0]) return values[0];
  const k = Math.min(after(sigmas, sigma) - 1, sigmas.length - 2);
  return values[k] + ((values[k + 1] - values[k]) * Math.log(sigma / sigmas[k])) / Math.log(sigmas[k + 1] / sigmas[k]);
}

function cost(design, chosen) {
  if (chosen.reads === null) return null;
  const reads = 2 * design.images * chosen.reads, units = sum(design.hidden) + OUTPUTS;
  return { reads, seconds: reads * design.read_time, joules: reads * units * design.read_energy };
}

function answer(design) {
  const network = TABLE.networks[`${design.dataset} ${design.hidden.join("-")}`];
  if (!network) throw new Error(`hidden = ${design.hidden.join(", ")}: not in the table of ${design.dataset}`);
  const found = candidates(design, (gain, beta) => interpolated(network, gain, beta));
  const best = [...found].sort(before)[0];
  return { design, candidates: found, best, nearest: best.nearest, cost: cost(design, best), works: !best.reason };
}

// ---------------------------------------------------------------------------------------------------------- the page

const $ = (id) => document.getElementById(id);
const PREFIXES = { f: -15, p: -12, n: -9, u: -6, µ: -6, μ: -6, m: -3, "": 0, k: 3, M: 6, G: 9 };
const SHOWN = [[-15, "f"], [-12, "p"], [-9, "n"], [-6, "µ"], [-3, "m"], [0, ""], [3, "k"], [6, "M"]];

const plain = (value, digits = 4) => String(Number(Number(value).toPrecision(digits)));
const percent = (value) => `${plain(100 * value, 3)} %`;
const count = (value) => (value === null ? "no number" : value.toLocaleString("en"));
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function quantity(value, unit) {
  if (!value) return `0 ${unit}`;
  const power = Math.min(unit ? 3 : 6, Math.max(-15, 3 * Math.floor(Math.log10(Math.abs(value) * (1 + 1e-12)) / 3)));
  return `${plain(value / 10 ** power)} ${SHOWN.find(([p]) => p === power)[1]}${unit}`;
}
const volts = (value) => quantity(value, "V");

function read(text, field) {
  const match = /^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?:(%)|([fpnuµμmkMG]?)(V|S|s|J)?)\s*$/.exec(text);
  const unit = field.unit;
  if (!match || (match[2] && unit) || (match[4] ?? unit) !== unit || (match[3] && !unit))
    throw new Error(`${field.label}: ${text || "nothing"} is no number${unit ? ` in ${unit}` : ""}`);
  const [digits, power = "0"] = match[1].split(/e/i);
  const value = Number(`${digits}e${Number(power) + (match[2] ? -2 : PREFIXES[match[3] ?? ""])}`);
  if (!(value >= field.least && value <= field.most) || (field.whole && !Number.isInteger(value)))
    throw new Error(`${field.label}: ${text} is not allowed, ${field.whole ? "whole numbers " : ""}from ${field.least} to ${field.most} are`);
  return value;
}

function designed() {
  const design = structuredClone(TABLE.defaults);
  design.dataset = $("dataset").value;
  design.hidden = $("hidden").value.split("-").map(Number);
  for (const field of TABLE.fields) {
    const text = $(field.name).value.trim();
    if (text === "" && field.optional) design[field.name] = null;
    else if (field.list) design[field.name] = [...new Set(text.split(",").map((part) => read(part, field)))].sort((a, b) => a - b);
    else design[field.name] = read(text, field);
  }
  if (design.adc_bits !== null && design.adc_range === null) throw new Error("range of the converter: is needed with its bits");
  return design;
}

// A slider is logarithmic; at its left end is 0, where that is allowed, or nothing.
const toSlider = (value, field) =>
  value === null || value <= 0 ? 0 : Math.max(1, Math.round(1 + (999 * Math.log(value / field.from)) / Math.log(field.to / field.from)));
function fromSlider(position, field) {
  if (position < 1) return field.optional ? "" : "0";
  const value = field.from * (field.to / field.from) ** ((position - 1) / 999);
  return field.whole ? String(Math.round(value)) : prefixed(field) ? quantity(Number(value.toPrecision(3)), field.unit) : plain(value, 3);
}

const prefixed = (field) => ["V", "s", "J"].includes(field.unit);

function control(field) {
  const box = document.createElement("div");
  const least = field.optional || field.least === 0 ? 0 : 1;
  box.className = "control";
  box.innerHTML =
    `<label for="${field.name}">${escaped(field.label)}</label>` +
    `<input type="text" id="${field.name}" autocomplete="off" spellcheck="false">` +
    `<input type="range" id="${field.name}-slider" min="${least}" max="1000" aria-label="${escaped(field.label)}, slider">`;
  const [text, slider] = box.querySelectorAll("input");
  const initial = TABLE.board[field.name];
  const show = (value) => (value === null ? "" : prefixed(field) && value ? quantity(value, field.unit) : plain(value, 6));
  text.value = field.list ? initial.map(show).join(", ") : show(initial);
  const follow = () => {
    const first = text.value.split(",")[0].trim();
    try {
      slider.value = first === "" ? 0 : Math.min(1000, toSlider(read(first, field), field));
    } catch {
      return;
    }
    slider.setAttribute("aria-valuetext", text.value || "none");
  };
  slider.addEventListener("input", () => {
    text.value = fromSlider(Number(slider.value), field);
    slider.setAttribute("aria-valuetext", text.value || "none");
    update();
  });
  text.addEventListener("input", () => {
    follow();
    update();
  });
  follow();
  return box;
}

function sentence(given) {
  const { design, best, nearest: near } = given;
  const how = `β = ${plain(best.beta)}, A = ${volts(best.input_gain)} and a target of ${volts(best.target)}`;
  if (best.reason) {
    const above = plain((design.margin * best.floor) / best.limit, 2);
    const bias = Math.round(100 * Math.hypot(best.offset, best.gain_mismatch));
    const why = {
      range: "the voltages exceed the converter's range, whatever N",
      bias: `${best.binding} bend the gradient by ${bias} % of itself, which no number of reads averages away`,
      floor: `no number of reads will do: ${best.binding} does not average, and alone is ${above} times what is allowed`,
      reads: `${count(best.reads)} reads would have to be averaged, and ${count(design.most_reads)} can be; what binds: ${best.binding}`,
    }[best.reason];
    return `No, predicted: with ${how}, ${why}.`;
  }
  const scheme = design.adc_bits === null ? "" : `, ${best.scheme} conversion`;
  const error = near
    ? `expected error ${percent(near.error)} [${percent(near.low)}, ${percent(near.high)}] as in ${near.store}`
    : "no stored sweep is near, so train before you build";
  const range = `from ${count(best.reads_low)} to ${count(best.reads_high)}`;
  return `Yes, predicted${near ? "" : " but untested"}: with ${how}${scheme}, average N = ${count(best.reads)} reads, ${range}; ${error}; what binds: ${best.binding}.`;
}

const table = (columns, rows) =>
  `<div class="scroll" tabindex="0" role="region" aria-label="table"><table><thead><tr>${columns.map((c) => `<th scope="col">${escaped(c)}</th>`).join("")}</tr></thead><tbody>` +
  rows.map((row) => `<tr>${row.map((cell) => `<td>${escaped(cell)}</td>`).join("")}</tr>`).join("") +
  "</tbody></table></div>";

function tell(given) {
  const { design, best, candidates: found, nearest: near, cost: spent } = given, asked = found[0];
  $("sentence").textContent = sentence(given);
  $("answer").className = given.works ? "yes" : "no";
  $("reads").textContent = best.reads === null ? "none" : count(best.reads);
  $("reads-range").textContent = `${count(best.reads_low)} to ${count(best.reads_high)}`;
  $("limit").textContent = volts(best.limit);
  $("limit-range").textContent = `${volts(best.limit_low)} to ${volts(best.limit_high)}`;
  $("usable").textContent = asked.usable_gain === null ? "any" : volts(asked.usable_gain);
  $("error").textContent = near ? percent(near.error) : "unknown";
  $("error-range").textContent = near ? `${percent(near.low)} to ${percent(near.high)}` : "no stored sweep is near";
  const [link, figure] = [$("store"), near && TABLE.figures[near.store]];
  link.hidden = !near;
  if (near) {
    link.textContent = `${near.store}, ${near.distance.toFixed(2)} decades away`;
    if (figure) link.href = figure;
    else link.removeAttribute("href");
  }
  $("cost").textContent =
    spent && spent.seconds + spent.joules > 0
      ? `Reads of a training: ${quantity(spent.seconds, "s")}, ${quantity(spent.joules, "J")}.` : "";
  $("voltages").innerHTML = table(
    ["layer", "rms", "largest", "beyond range", "nudge moves", "largest, best"],
    asked.layers.map((layer, k) => [
      k + 1, volts(layer.voltage), volts(layer.largest), percent(layer.beyond), volts(layer.response), volts(best.layers[k].largest),
    ]),
  );
  const alone = best.terms.filter((one) => one.volts > 0).map((one) => [one.name, volts(one.volts), one.averages ? "yes" : "no", count(one.alone)]);
  for (const [key, name] of [["offset", "offsets"], ["gain_mismatch", "gain mismatch"]])
    if (best[key] > 0) alone.push([name, `${percent(best[key])} of the gradient`, "no", best[key] <= BIAS ? "1" : "no number"]);
  $("alone").innerHTML = table(["", "as noise of a read", "averages", "reads N"], alone);
  $("candidates").innerHTML = table(
    ["", "A", "target", "β", "η", "B", "scheme", "limit", "reads N", "range of N", "verdict"],
    [...found].sort(before).slice(0, 8).map((one) => [
      one.fit, volts(one.input_gain), volts(one.target), plain(one.beta), plain(one.learning_rate), one.batch_size, one.scheme,
      volts(one.limit), count(one.reads), `${count(one.reads_low)} to ${count(one.reads_high)}`, one.reason || (one.nearest ? "works" : "untested"),
    ]),
  );
  $("limit-figure").innerHTML = limitFigure(given);
  $("voltage-figure").innerHTML = voltageFigure(given);
}

// Logarithmic axes: a frame of 320 x 220 units within the drawing.
const FRAME = { left: 62, top: 14, width: 330, height: 206 };
function scale([from, to], start, length) {
  return (value) => start + (length * Math.log(Math.min(to, Math.max(from, value)) / from)) / Math.log(to / from);
}
function decades([from, to], most = 7) {
  const first = Math.ceil(Math.log10(from) - 1e-9), last = Math.floor(Math.log10(to) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, k) => 10 ** (first + k * step));
}
function frame(x, y, xs, ys, labels, horizontal) {
  const { left, top, width, height } = FRAME, bottom = top + height;
  return (
    ys.map((v) => `<line class="grid" x1="${left}" x2="${left + width}" y1="${y(v)}" y2="${y(v)}"/>` +
      `<text x="${left - 6}" y="${y(v) + 4}" text-anchor="end">${volts(v)}</text>`).join("") +
    xs.map((v, k) => `<text x="${x(v)}" y="${bottom + 17}" text-anchor="middle">${labels[k]}</text>`).join("") +
    `<text x="${left + width / 2}" y="${bottom + 35}" text-anchor="middle">${horizontal}</text>` +
    `<path class="axis" d="M${left} ${top}V${bottom}H${left + width}"/>`
  );
}
const svg = (title, body) =>
  `<svg viewBox="0 0 400 260" role="img" aria-label="${escaped(title)}"><title>${escaped(title)}</title>${body}</svg>`;

function limitFigure({ best, design }) {
  const { left, top, width, height } = FRAME, reads = [1, 1e6];
  const sigma = (n) => Math.sqrt(best.averaged ** 2 / n + best.floor ** 2);
  const shown = [sigma(1), sigma(1e6), best.limit_low / design.margin, best.limit_high].filter((v) => v > 0);
  const span = [Math.min(...shown) / 2, Math.max(...shown) * 2];
  const x = scale(reads, left, width), up = scale(span, 0, height), y = (v) => top + height - up(v);
  const places = Array.from({ length: 61 }, (_, k) => 10 ** (k / 10));
  const curve = sigma(1) > 0 ? `<path class="noise" d="${places.map((n, k) => `${k ? "L" : "M"}${x(n)} ${y(sigma(n))}`).join("")}"/>` : "";
  const at = best.reads === null || best.reads > 1e6 || !sigma(1) ? "" :
    `<line class="mark" x1="${x(best.reads)}" x2="${x(best.reads)}" y1="${top}" y2="${top + height}"/><circle cx="${x(best.reads)}" cy="${y(sigma(best.reads))}" r="5"/>`;
  const powers = decades(reads);
  return svg(
    `Noise over the reads averaged, against the predicted limit of ${volts(best.limit)}`,
    `<rect class="band" x="${left}" width="${width}" y="${y(best.limit_high)}" height="${y(best.limit_low) - y(best.limit_high)}"/>` +
      `<line class="limit" x1="${left}" x2="${left + width}" y1="${y(best.limit)}" y2="${y(best.limit)}"/>` +
      `<line class="allowed" x1="${left}" x2="${left + width}" y1="${y(best.limit / design.margin)}" y2="${y(best.limit / design.margin)}"/>` +
      frame(x, y, powers, decades(span), powers.map((n) => quantity(n, "")), "reads averaged, N") + curve + at,
  );
}

function voltageFigure({ best, design }) {
  const { left, top, width, height } = FRAME, half = design.adc_range === null ? null : design.adc_range / 2;
  const step = design.adc_bits === null ? null : design.adc_range / 2 ** design.adc_bits;
  const shown = best.layers.flatMap((layer) => [layer.largest, layer.response, layer.voltage]);
  for (const value of [half, step, design.noise]) if (value) shown.push(value);
  const span = [Math.min(...shown) / 2, Math.max(...shown) * 2];
  const up = scale(span, 0, height), y = (v) => top + height - up(v), wide = width / best.layers.length;
  const x = (k) => left + wide * (k - 0.5);
  const level = (value, name) => (value ? `<line class="${name}" x1="${left}" x2="${left + width}" y1="${y(value)}" y2="${y(value)}"/>` : "");
  const bars = best.layers.map((layer, k) => {
    const middle = x(k + 1);
    return `<line class="bar" x1="${middle - 9}" x2="${middle - 9}" y1="${y(layer.voltage)}" y2="${y(layer.largest)}"/>` +
      `<circle class="rms" cx="${middle - 9}" cy="${y(layer.voltage)}" r="4.5"/>` +
      `<path class="moved" d="M${middle + 9} ${y(layer.response) - 6}l6 6l-6 6l-6 -6z"/>`;
  });
  const layers = best.layers.map((_, k) => k + 1);
  return svg(
    "Voltages of each layer, what the nudge moves, the converter's range and step, and the noise of a read",
    frame(x, y, layers, decades(span), layers, "layer, the last is the output") +
      level(half, "range") + level(step, "step") + level(design.noise, "noise") + bars.join(""),
  );
}

function update() {
  const message = $("message");
  try {
    tell(answer(designed()));
    message.textContent = "";
    message.hidden = true;
  } catch (error) {
    message.textContent = error.message;
    message.hidden = false;
  }
}

function layouts() {
  const wanted = $("hidden").value, dataset = $("dataset").value;
  const own = Object.keys(TABLE.networks).filter((name) => name.startsWith(`${dataset} `)).map((name) => name.split(" ")[1]);
  $("hidden").innerHTML = own.map((name) => `<option>${name}</option>`).join("");
  $("hidden").value = own.includes(wanted) ? wanted : own.includes("128-128-128") ? "128-128-128" : own[0];
}

const sets = [...new Set(Object.keys(TABLE.networks).map((name) => name.split(" ")[0]))];
$("dataset").innerHTML = sets.map((name) => `<option value="${name}">${escaped(TABLE.titles[name] ?? name)}</option>`).join("");
$("dataset").value = TABLE.board.dataset;
$("hidden").innerHTML = `<option>${TABLE.board.hidden.join("-")}</option>`;
layouts();
$("dataset").addEventListener("change", () => (layouts(), update()));
$("hidden").addEventListener("change", update);
for (const field of TABLE.fields) $(field.group).append(control(field));
window.epkit = { answer, designed, sentence };
update();
