// Curves as an SVG, with a sentence for those who do not see it and a table for those who want the numbers.

import { h, put, svg } from "./dom.js";
import { compact, metric } from "./words.js";

/** Units are pixels, so that letters are as large as all others; before it has a place a chart is so wide. */
const [USUAL, HEIGHT] = [520, 230];
const MARGIN = { left: 52, right: 14, top: 12, bottom: 30 };

/** Points drawn of a curve; of more, neighbours are averaged. */
const MOST = 240;

/** Rows of the table below. */
const ROWS = 60;

/** Of many points few that stand for them. */
function thin(points, most) {
  if (points.length <= most) return points;
  const size = points.length / most;
  return Array.from({ length: most }, (_, place) => {
    const part = points.slice(Math.floor(place * size), Math.max(Math.floor((place + 1) * size), Math.floor(place * size) + 1));
    const mean = (axis) => part.reduce((sum, point) => sum + point[axis], 0) / part.length;
    return [mean(0), mean(1)];
  });
}

/** Round numbers from low to high. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) found.push(Math.abs(value) < step * 1e-6 ? 0 : value);
  return found;
}

/** A chart that is drawn again whenever `draw` is called with `{name: [[step, value], …]}`. */
export function chart(title, { percent = false } = {}) {
  const picture = svg("svg", { role: "img", "aria-label": title, class: "chart" });
  const legend = h("div", { class: "legend" });
  const numbers = h("div", { class: "scroll", role: "region", "aria-label": `${title}: numbers`, tabindex: "0" });
  const details = h("details", { class: "numbers" }, h("summary", {}, "Numbers"), numbers);
  const element = h("figure", { class: "card figure" }, h("figcaption", {}, h("span", {}, title), legend), picture, details);
  let latest = {};
  const fillTable = () => {
    const names = Object.keys(latest);
    const steps = [...new Set(names.flatMap((name) => thin(latest[name], ROWS).map((point) => Math.round(point[0]))))].sort((a, b) => a - b);
    const value = (name, step) => latest[name].findLast((point) => point[0] <= step)?.[1];
    put(numbers, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Step"), names.map((name) => h("th", { scope: "col" }, metric(name))))),
      h("tbody", {}, thin(steps.map((step) => [step, step]), ROWS).map(([step]) => h("tr", {}, h("th", { scope: "row" }, String(Math.round(step))),
        names.map((name) => h("td", {}, value(name, step) === undefined ? "–" : compact(value(name, step)))))))));
  };
  details.addEventListener("toggle", () => details.open && fillTable());

  const draw = (series) => {
    latest = series;
    const names = Object.keys(series).filter((name) => series[name].length > 0);
    element.hidden = names.length === 0;
    if (element.hidden) return;
    const width = picture.clientWidth || USUAL;
    picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const points = names.flatMap((name) => series[name]);
    const [xs, ys] = [points.map((point) => point[0]), points.map((point) => point[1])];
    let [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    if (left === right) [left, right] = [Math.max(0, left - 1), right + 1];
    if (percent) [low, high] = [Math.max(0, low - 0.05), Math.min(1, high + 0.05)];
    const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
    if (!percent) [low, high] = [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
    const x = (value) => MARGIN.left + ((value - left) / (right - left)) * (width - MARGIN.left - MARGIN.right);
    const y = (value) => HEIGHT - MARGIN.bottom - ((value - low) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    const grid = ticks(low, high, 4).map((value) => [
      svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value), class: "grid" }),
      svg("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, compact(value)),
    ]);
    const steps = ticks(left, right, width / 80).filter(Number.isInteger).map((value) =>
      svg("text", { x: x(value), y: HEIGHT - 8, "text-anchor": "middle" }, compact(value)));
    const curves = names.map((name, place) => {
      const drawn = thin(series[name], MOST);
      const last = drawn.at(-1);
      const path = drawn.map((point, number) => `${number ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
      return svg("g", { class: `curve c${place % 4}` }, svg("path", { d: path }), svg("circle", { cx: x(last[0]), cy: y(last[1]), r: 3.5 }));
    });
    const sentence = names.map((name) => {
      const own = series[name];
      return `${metric(name)} from ${compact(own[0][1])} to ${compact(own.at(-1)[1])}`;
    }).join("; ");
    picture.setAttribute("aria-label", `${title} over ${Math.round(right)} steps: ${sentence}`);
    picture.dataset.points = String(points.length);
    put(picture, grid, steps, curves);
    put(legend, names.map((name, place) => h("span", { class: `key c${place % 4}` }, `${metric(name)} `, h("b", {}, compact(series[name].at(-1)[1])))));
    if (details.open) fillTable();
  };
  draw({});
  let drawn = 0;
  new ResizeObserver(() => {
    if (Math.abs(picture.clientWidth - drawn) < 2) return;
    drawn = picture.clientWidth;
    draw(latest);
  }).observe(picture);
  return { element, draw };
}
