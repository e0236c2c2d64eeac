// Draws the charts of a page, and shows whether live updates arrive. The server renders everything else.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let drawn = [];
  // uPlot's default ticks are American. Each row: minimum distance of ticks in seconds, text, text at a new year, month, day, hour, minute, second
  const ticks = [
    [3600 * 24 * 365, "{YYYY}", null, null, null, null, null, null, 1],
    [3600 * 24 * 28, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [3600 * 24, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [60, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
    [0.001, "{HH}:{mm}:{ss}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  ];
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const LABEL_PX = 66; // of the widest label below a chart, with the space beside it
  const DATE_PX = 84; // of the widest date below a chart; the first stands half beside it
  const DIGIT_PX = 8;
  const spans = { "1D": 1, "1W": 7, "1M": 30, "1Y": 365, All: Infinity };
  let range = "All";

  // What all charts share. The y axis spans at least `leastSpan` of its highest value: small changes look small.
  function plot(element, series, data, leastSpan, more) {
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid"), width: 1 } };
    const options = {
      width: element.clientWidth, height: element.clientHeight, tzDate: time => uPlot.tzDate(new Date(time * 1000), "Etc/UTC"),
      series: [{ label: "UTC", value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }, ...series],
      padding: [null, LABEL_PX / 2, null, null],
      scales: { y: { range: (_, low, high) => {
        if (low === null) return [0, 1];
        const spare = Math.max(0, leastSpan(high) - (high - low)) / 2;
        return uPlot.rangeNum(low - spare, high + spare, 0.1, true);
      } } },
      axes: [
        { ...axis, space: LABEL_PX, values: ticks },
        { ...axis, size: (_, texts) => Math.max(DATE_PX / 2, 20 + DIGIT_PX * Math.max(...(texts ?? [""]).map(text => text.length))), values: (_, splits) => splits.map(split => split.toLocaleString("en")) },
      ],
      legend: { show: false }, ...more,
    };
    element.replaceChildren();
    drawn.push([element, new uPlot(options, data, element)]);
  }

  // A line breaks before these points, which follow a time without one.
  const broken = at => (chart, series, first, last, none) => [...none, ...at.filter(index => index > first && index <= last).map(index => [index - 1, index].map(end => Math.round(chart.valToPos(chart.data[0][end], "x", true))))];

  function drawWeight(element) {
    const chart = JSON.parse(element.dataset.chart);
    const edge = label => ({ label, stroke: "transparent", points: { show: false } });
    const target = { label: "Target", stroke: colour("--ink"), width: 1, dash: [4, 4], points: { show: false } };
    const times = chart.times.map(time => Date.parse(time.replace(" ", "T").replace(/Z?$/, "Z")) / 1000);
    const flat = (chart.band || []).map(bound => times.map(() => bound));
    const series = [...(chart.band ? [edge("Low"), edge("High"), target] : []), { label: chart.name, stroke: chart.colour, width: 2, gaps: broken(chart.gaps) }];
    plot(element, series, [times, ...flat, chart.line], () => 1, { bands: chart.band ? [{ series: [2, 1], fill: colour("--band") }] : [] });
  }

  // Value, holding and rebalances in the chosen range, and below its title the figures at the cursor, or else the newest.
  function drawValue(element) {
    const { times_s: times, line, hold, marks, inflows, gaps: breaks } = JSON.parse(element.dataset.valueChart);
    const count = name => times.filter(time => time >= times.at(-1) - spans[name] * 86400).length;
    for (const button of document.querySelectorAll("[data-range]")) {
      button.disabled = count(button.dataset.range) < 2;
      button.setAttribute("aria-pressed", button.dataset.range === range);
    }
    const marked = line.map((value, index) => (marks.includes(index) ? value : null));
    const paid = line.map((value, index) => (inflows.some(([at]) => at === index) ? value : null));
    const [past, values, holding, rebalances, payments] = [times, line, hold, marked, paid].map(column => column.slice(-count(range)));
    const money = text => { // half-even, as figures of the pages (agent/figures.py)
      const [, sign, whole, fraction = ""] = text.match(/^(-?)(\d+)\.?(\d*)$/);
      const cents = BigInt(whole + fraction.slice(0, 2).padEnd(2, "0"));
      const rest = fraction.slice(2).replace(/0+$/, "");
      const rounded = cents + (rest > "5" || (rest === "5" && cents % 2n) ? 1n : 0n);
      return `${sign && rounded ? "−" : ""}${(rounded / 100n).toLocaleString("en")}.${String(rounded % 100n).padStart(2, "0")}`;
    };
    const read = chart => {
      const at = chart.cursor.idx ?? past.length - 1;
      const time = new Date(past[at] * 1000).toISOString().slice(0, 16).replace("T", " ");
      const sums = inflows.filter(([index]) => index === at + line.length - past.length).map(([, value]) => ` ${value.startsWith("-") ? "Withdrawn or set aside" : "Deposited or released"}: ${money(value.replace("-", ""))}.`);
      document.getElementById("readout").textContent = `${time} UTC: value ${money(values[at])}, holding ${money(holding[at])}.${sums.join("")}`;
    };
    const gaps = broken(breaks.map(index => index - line.length + past.length));
    const series = [
      { label: "Value", stroke: colour("--c1"), width: 2, fill: colour("--tint"), points: { show: false }, gaps },
      { label: "Holding", stroke: colour("--soft"), width: 1.5, dash: [5, 4], points: { show: false }, gaps },
      { label: "Rebalances", stroke: colour("--c1"), paths: () => null, points: { show: true, size: 9, width: 2, fill: colour("--paper") } },
      { label: "Deposits and withdrawals", stroke: colour("--ink"), paths: () => null, points: { show: true, size: 8, width: 1, fill: colour("--ink") } },
    ];
    plot(element, series, [past, ...[values, holding, rebalances, payments].map(column => column.map(text => text && Number(text)))], highest => highest / 100, { hooks: { ready: [read], setCursor: [read] } });
  }

  function drawAll() {
    if (!window.uPlot) return; // its script draws them
    for (const [, chart] of drawn) chart.destroy();
    drawn = [];
    document.querySelectorAll("[data-chart]").forEach(drawWeight);
    document.querySelectorAll("[data-value-chart]").forEach(drawValue);
  }

  // On a phone each row is a card, whose cells have the names of their columns.
  function label() {
    for (const table of document.querySelectorAll(".scroll table")) {
      const names = [...table.querySelectorAll("thead th")].map(cell => cell.textContent);
      for (const cell of table.querySelectorAll("tbody td:not([colspan])")) cell.dataset.label = names[cell.cellIndex];
    }
  }

  document.addEventListener("click", event => {
    if (event.target.dataset.range) {
      range = event.target.dataset.range;
      drawAll();
    }
    if (event.target.dataset.kind !== undefined) {
      kind = event.target.dataset.kind;
      filter();
    }
    if (event.target.dataset.target !== undefined) {
      const { target, variable, events } = event.target.dataset;
      document.getElementById("f-alert-target").value = target;
      document.getElementById("f-alert-target").readOnly = target !== "";
      document.getElementById("f-url_env").value = variable;
      for (const box of document.querySelectorAll("#target [name=event]")) box.checked = events.split(" ").includes(box.value);
    }
    if (event.target.dataset.asset) document.getElementById("f-asset").value = event.target.dataset.asset;
  });

  document.addEventListener("input", event => {
    if (!event.target.name?.startsWith("target:")) return;
    const inputs = [...document.querySelectorAll("[name^='target:']")];
    const shares = inputs.map(input => Number(input.value.replace("%", "")));
    inputs.forEach((input, at) => input.setCustomValidity(Number.isNaN(shares[at]) ? "Write a number, such as 60.5." : ""));
    const total = shares.reduce((sum, share) => sum + share, 0);
    const missing = (100 - total).toFixed(2);
    const isWhole = Number(missing) === 0;
    const words = isWhole ? `${total.toFixed(2)} %` : `${total.toFixed(2)} %: ${missing.replace("-", "")} % ${missing > 0 ? "missing" : "too much"}`;
    const output = document.getElementById("sum");
    output.textContent = Number.isNaN(total) ? "unknown" : words;
    output.className = isWhole ? "" : "down";
    if (!isWhole && !Number.isNaN(total)) event.target.setCustomValidity(`The targets sum to ${words}.`);
  });

  // What is sent is said at once: the answer may take seconds.
  document.addEventListener("submit", event => {
    const { target: form, submitter } = event;
    if (form.method !== "post" || !submitter) return;
    const note = Object.assign(document.createElement("p"), { className: "note sending", role: "status", textContent: `Under way: ${submitter.textContent.trim()}.` });
    (submitter.closest(".actions") ?? submitter.closest("p") ?? submitter).after(note);
  });
  addEventListener("pageshow", event => { if (event.persisted) document.querySelector(".sending")?.remove(); });

  // The history shows all steps, or those of one kind.
  let kind = "";
  function filter() {
    const rows = [...document.querySelectorAll("[data-step]")];
    for (const button of document.querySelectorAll("[data-kind]")) button.setAttribute("aria-pressed", button.dataset.kind === kind);
    for (const row of rows) row.hidden = kind && row.dataset.step !== kind;
    for (const section of document.querySelectorAll("section:has(> h2)")) section.hidden = kind && !section.querySelector("[data-step]:not([hidden])");
    const none = document.getElementById("none");
    if (none) none.hidden = !kind || rows.some(row => !row.hidden);
  }

  // A live update replaces what is unfolded: unfold it again.
  const unfolded = new Set();
  document.addEventListener("toggle", event => {
    if (event.newState === "open") unfolded.add(event.target.id);
    else unfolded.delete(event.target.id);
  }, true);
  function unfold() {
    for (const details of document.querySelectorAll("details")) if (unfolded.has(details.id)) details.open = true;
    if (unfolded.has("more")) document.querySelector("#more:not(:popover-open)")?.showPopover();
  }

  // Tab stays inside an open sheet. By itself it leaves one whose button a live update has replaced, and never comes back.
  document.addEventListener("keydown", event => {
    const sheet = document.querySelector(".sheet:popover-open");
    if (event.key !== "Tab" || !sheet) return;
    const fields = [...sheet.querySelectorAll("a[href], button, input, select, textarea, summary")].filter(field => !field.disabled && field.offsetParent);
    const [last, next] = event.shiftKey ? [fields[0], fields.at(-1)] : [fields.at(-1), fields[0]];
    if (sheet.contains(document.activeElement) && document.activeElement !== last) return;
    event.preventDefault();
    next.focus();
  });

  function say(text) {
    const place = document.getElementById("connection");
    if (place.textContent !== text) place.textContent = text;
  }

  // A change that is announced while an element is read again is lost with the element, which is replaced: compare versions then.
  let newest = 0;
  let isLive = false;
  function catchUp() {
    for (const region of document.querySelectorAll("[data-version][hx-trigger]")) if (Number(region.dataset.version) < newest) htmx.trigger(region, "sse:changed");
  }

  // For the page that is shown without a connection: the time of these figures, and nothing else of them.
  async function noteTime() {
    const { events, until } = document.getElementById("shown").dataset;
    if (until && window.caches) (await caches.open("figures")).put(events.replace(/events.*/, "figures"), new Response(until));
  }
  // Beside the time of the value, how long ago it was.
  const AGE_MS = 15000;
  function showAge() {
    const place = document.getElementById("age");
    if (!place) return;
    const minutes = Math.floor((Date.now() - Date.parse(`${document.getElementById("shown").dataset.until.replace(" ", "T")}Z`)) / 60000);
    const age = minutes < 120 ? `${minutes} minutes` : `${Math.floor(minutes / 60)} hours`;
    place.textContent = minutes >= 2 ? `, ${age} ago` : "";
  }
  setInterval(showAge, AGE_MS);
  // refused with a certificate that the browser does not trust
  const registered = () => navigator.serviceWorker?.register("/static/offline.js", { scope: "/" }).catch(() => null);

  // Alerts on this device: what the browser permits, and whether the agent has its subscription. The form sends a change.
  async function showDevice() {
    const form = document.getElementById("device");
    if (!form) return;
    const [state, button] = form.querySelectorAll("output, button");
    const push = (await registered())?.pushManager;
    if (!push) return void (state.textContent = "Not possible here: the browser needs web push and a certificate that it trusts; an iPhone needs the installed app.");
    const blocked = "Blocked by the browser: permit notifications of this site in its settings, then load the page again.";
    if (Notification.permission === "denied") return void (state.textContent = blocked);
    const present = await push.getSubscription();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(present?.endpoint ?? "")));
    const id = [...digest.slice(0, 8)].map(byte => byte.toString(16).padStart(2, "0")).join("");
    const on = form.dataset.ids.split(" ").includes(id);
    state.textContent = on ? "On." : "Off.";
    button.textContent = on ? "Turn off" : "Turn on";
    button.hidden = false;
    button.onclick = async () => {
      let fields = { remove: id };
      if (!on) {
        const subscribe = () => push.subscribe({ userVisibleOnly: true, applicationServerKey: form.dataset.key });
        try {
          await navigator.serviceWorker.ready;
          const { endpoint, keys } = (await subscribe().catch(async error => {
            if (error.name !== "InvalidStateError") throw error; // subscribed with another key
            if (!confirm("This browser gets alerts with another key: an older one, or that of another portfolio, whose alerts on this device would end. Continue?")) throw new Error("another key is in use.");
            await present.unsubscribe();
            return subscribe();
          })).toJSON();
          fields = { endpoint, key: keys.p256dh, auth: keys.auth, page: location.pathname };
        } catch (error) {
          return void (state.textContent = Notification.permission === "denied" ? blocked : `Not turned on: ${error.message}`);
        }
      }
      for (const [name, value] of Object.entries(fields)) form.elements[name].value = value;
      form.submit();
    };
  }

  document.addEventListener("DOMContentLoaded", () => { label(); noteTime(); showAge(); });
  document.addEventListener("htmx:afterSettle", () => { label(); drawAll(); noteTime(); showAge(); unfold(); if (kind) filter(); catchUp(); showDevice(); if (isLive) say(document.getElementById("shown").dataset.live); });

  const loginLink = () => Object.assign(document.createElement("a"), { href: location.href, textContent: document.getElementById("shown").dataset.login });
  const SILENCE_MS = 4000; // longer than a stream takes to begin again

  // All tabs share one event stream, without shared workers each tab has its own; no stream is open for hidden tabs alone.
  function followStream() {
    const stream = window.SharedWorker ? new SharedWorker("/static/stream.js").port : new Worker("/static/stream.js");
    let silence;
    stream.onmessage = ({ data: { version, state, reason } }) => {
      newest = Math.max(newest, version);
      isLive = state === "live";
      if (state !== "silent") silence = clearTimeout(silence);
      if (state === "full") return say("No live updates now. Figures may be old: load the page again.");
      if (state === "live") {
        connection.restore();
        catchUp();
        return say(document.getElementById("shown").dataset.live);
      }
      if (state === "silent") {
        silence ??= setTimeout(() => connection.lose(`The dashboard does not respond. ${document.getElementById("shown").dataset.gone}; figures and state are those read last.`), SILENCE_MS);
        return say("No live updates: the dashboard does not respond. Figures may be old.");
      }
      connection.lose(`${reason || "Your session has ended."} `, loginLink());
      say("Your session has ended. Figures may be old. ");
      document.getElementById("connection").append(loginLink());
    };
    const follow = () => stream.postMessage(document.hidden ? null : document.getElementById("shown").dataset.events);
    follow();
    document.addEventListener("visibilitychange", follow);
  }

  // The figures are painted before the charts are loaded and the stream begins.
  const charts = Object.assign(document.createElement("script"), { src: document.currentScript.dataset.charts, onload: drawAll });
  requestAnimationFrame(() => setTimeout(() => {
    document.head.append(charts);
    followStream();
    registered();
    showDevice();
  }));
  dark.addEventListener("change", drawAll);
  addEventListener("resize", () => { for (const [element, chart] of drawn) chart.setSize({ width: element.clientWidth, height: element.clientHeight }); });
})();
