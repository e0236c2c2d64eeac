(() => {
"use strict";
const { lists, figures } = JSON.parse(document.getElementById("figures").textContent);
const places = [...document.querySelectorAll("[data-figure]")];
const spoken = document.getElementById("spoken");
const coarse = matchMedia("(pointer: coarse)");
const PAPER_PX = 680; // width of A4 within its margins; the browser lays out the page for paper only after the charts are drawn
let printing = false;

function role(name, strength) {
  const colour = getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888888";
  if (strength === undefined) return colour;
  const part = at => parseInt(colour.slice(at, at + 2), 16);
  return `rgba(${part(1)},${part(3)},${part(5)},${strength})`;
}

/* Replaces "var(--c1)" and "var(--c1)/0.2" by the page's present colours. */
function coloured(value) {
  if (typeof value === "string") {
    const match = /^var\((--[a-z0-9]+)\)(?:\/([0-9.]+))?$/.exec(value);
    return match ? role(match[1], match[2]) : value;
  }
  if (Array.isArray(value)) return value.length && typeof value[0] === "number" ? value : value.map(coloured);
  if (value && typeof value === "object" && "list" in value) return coloured(lists[value.list]);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
  return value;
}

function over(base, own) {
  const merged = { ...base };
  for (const [key, item] of Object.entries(own || {})) {
    const inner = item && typeof item === "object" && !Array.isArray(item) && base && typeof base[key] === "object" && !Array.isArray(base[key]);
    merged[key] = inner ? over(base[key], item) : item;
  }
  return merged;
}

function themed(layout, small, narrow) {
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: role("--soft") };
  const axis = { automargin: true, zeroline: false, linecolor: role("--rule"), tickcolor: role("--rule"), gridcolor: role("--grid"),
    zerolinecolor: role("--rule"), tickfont: font, title: { font, standoff: 8 }, fixedrange: coarse.matches };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, hovermode: "x unified", separators: ".,",
    colorway: [1, 2, 3, 4, 5, 6, 7, 8].map(number => role(`--c${number}`)), dragmode: coarse.matches ? false : "zoom",
    margin: { l: 8, r: 12, t: 8, b: 8, pad: 0 }, showlegend: !small,
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { ...font, color: role("--ink") }, bgcolor: "rgba(0,0,0,0)" },
    hoverlabel: { bgcolor: role("--paper"), bordercolor: role("--rule"), font: { ...font, color: role("--ink") }, align: "left", namelength: 40 },
  };
  const own = coloured(layout);
  if (printing) base.width = PAPER_PX;
  for (const name of new Set(["xaxis", "yaxis", ...Object.keys(own).filter(key => /^[xy]axis\d*$/.test(key))])) {
    base[name] = name[0] === "x" ? { ...axis, showgrid: false, showline: true, tickangle: 0, ticks: "outside", ticklen: 4, nticks: narrow ? 4 : small ? 5 : 10 }
      : { ...axis, fixedrange: true, separatethousands: true, exponentformat: "none", nticks: small ? 5 : 8 };
    if (typeof own[name]?.title === "string") own[name].title = { text: own[name].title };
  }
  if (typeof own.legend === "object" && own.showlegend === undefined) own.showlegend = true;
  return over(base, own);
}

const settings = { displayModeBar: false, responsive: true, showTips: false, doubleClick: "reset", displaylogo: false };

function parts(place) {
  const figure = figures[Number(place.dataset.figure)];
  const narrow = place.clientWidth < 480;
  return [coloured(figure.data).map(trace => scaled(trace, narrow)), themed(figure.layout, place.classList.contains("small"), narrow)];
}

/* Puts the colour scale above a narrow plot, else beside it. */
function scaled(trace, narrow) {
  if (!trace.marker?.colorscale || trace.marker.showscale === false) return trace;
  const font = { size: 12, color: role("--soft") };
  const beside = { outlinewidth: 0, thickness: 14, tickfont: font, title: { font } };
  const above = { orientation: "h", x: 0.5, xanchor: "center", y: 1.02, yanchor: "bottom", nticks: 4, title: { side: "top" } };
  const bar = over(beside, trace.marker.colorbar);
  if (typeof bar.title === "string") bar.title = { text: bar.title, font };
  return { ...trace, marker: { ...trace.marker, colorbar: narrow ? over(bar, above) : bar } };
}

/* Draws from the top down, and yields to the browser after each chart, so that visible charts come first. Times in ms since navigation start. */
async function draw() {
  const timings = document.documentElement.dataset;
  for (const place of places) {
    if (!timings.seenMs && place.getBoundingClientRect().top > innerHeight) timings.seenMs = String(Math.round(performance.now()));
    await Plotly.newPlot(place, ...parts(place), settings);
    place.addEventListener("keydown", event => walk(place, event));
    place.addEventListener("blur", () => Plotly.Fx.unhover(place));
    await new Promise(resolve => setTimeout(resolve));
  }
  timings.drawnMs = String(Math.round(performance.now()));
  timings.drawn = String(places.length);
  document.dispatchEvent(new Event("trimtab:drawn"));
}

function redraw() {
  for (const place of places.filter(place => place.data)) {
    Plotly.react(place, ...parts(place), settings);
    if (!printing && place._fullLayout.width !== place.clientWidth) Plotly.relayout(place, { autosize: true });
  }
}

/* Moves a cursor over the longest trace by keyboard, and reads its values out. */
function walk(place, event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  if (event.key === "Escape") { place.cursor = undefined; Plotly.Fx.unhover(place); return; }
  if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
  const traces = place._fullData.filter(trace => trace.visible === true && length(trace));
  if (!traces.length) return;
  event.preventDefault();
  const main = traces.reduce((best, trace) => (length(trace) > length(best) ? trace : best));
  const last = length(main) - 1;
  const wide = Math.max(1, Math.round((last + 1) / 200));
  const next = place.cursor === undefined ? (event.key === "End" ? last : 0) : place.cursor + steps[event.key] * wide;
  place.cursor = Math.min(last, Math.max(0, next));
  point(place, main);
  spoken.textContent = read(place, main, traces);
}

function point(place, main) {
  const { hovermode, xaxis } = place._fullLayout;
  if (hovermode === "x unified") Plotly.Fx.hover(place, { xval: xaxis.d2c(main.x[place.cursor]) }, "xy");
  else if (hovermode && main.type !== "pie") Plotly.Fx.hover(place, [{ curveNumber: main.index, pointNumber: place.cursor }]);
}

function length(trace) {
  return (trace.x || trace.labels || trace.y || []).length;
}

function read(place, main, traces) {
  const at = place.cursor;
  if (main.type === "pie") return `${main.labels[at]}: ${number(main.values[at])}`;
  const across = main.orientation === "h";
  const key = across ? main.y[at] : main.x[at];
  const axis = place._fullLayout[across ? "yaxis" : "xaxis"];
  const where = axis && axis.type === "date" ? new Date(key).toISOString().slice(0, 16).replace("T", " ") : letters(String(key));
  const spoken = traces.filter(trace => trace === main || trace.hoverinfo !== "skip").sort((left, right) => rank(left) - rank(right));
  const values = spoken.map(trace => {
    const index = trace === main ? at : nearest(across ? trace.y : trace.x, key);
    const value = index < 0 ? undefined : (across ? trace.x : trace.y)[index];
    return value === undefined || value === null ? "" : `${letters(trace.name)} ${typeof value === "number" ? number(value) : letters(String(value))}`;
  });
  return `${where}: ${values.filter(Boolean).join(", ")}`;
}

function nearest(keys, key) {
  if (!keys || !keys.length) return -1;
  if (typeof key !== "number") return Array.prototype.indexOf.call(keys, key);
  let low = 0, high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle] <= key) low = middle + 1; else high = middle;
  }
  return low - 1;
}

const rank = trace => trace.legendrank ?? 1000;
const number = value => value.toLocaleString("en", { maximumSignificantDigits: 6 });
/* Texts in figures are escaped for Plotly; this unescapes them. */
const letters = text => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

for (const query of ["(prefers-color-scheme: dark)", "print", "(pointer: coarse)"]) matchMedia(query).addEventListener("change", redraw);
for (const [event, now] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => { printing = now; redraw(); });
}
draw();
})();
