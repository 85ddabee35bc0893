// Draws the page again from /v1/overview, as html.py wrote it at first, and keeps it up to date: an event of
// /v1/events has it asked for at once, and a timer from time to time. Nothing here changes anything on the gateway.
import { html, render } from "/page/htm-preact-standalone.module.js";

const REFRESH_MS = 10_000;
const PAUSE_MS = 1_500; // after an event, until it is asked again: a reload is many events
const HISTORY_MS = 60_000;
const MAX_EVENTS = 12;
const MARKS = { good: "●", doubtful: "▲", bad: "■" };
const HEIGHT = 104; // of a plot
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6]; // steps of an axis
const DASHES = { unregistered: [6, 3] };

const place = (id) => document.getElementById(id);
const question = () => new URLSearchParams(location.search).get("q") || "";

// -- parts of the page, as in html.py --------------------------------------------------------------------------

const Mark = (tone) => MARKS[tone] && html`<span class=${`mark ${tone}`} aria-hidden="true">${MARKS[tone]}</span>`;

const span = (seconds) => {
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes}m ${seconds % 60}s` : `${Math.floor(minutes / 60)}h ${minutes % 60}m`;
};

const Top = (view, left) => html`
  <div class="state">
    <h1 class=${`tone ${view.tone}`}>${Mark(view.tone)}<strong>${view.word}</strong></h1>
    <p><strong class=${`tone ${view.looks_tone}`}>${Mark(view.looks_tone)}${view.looks}</strong></p>
    <p class="soft">${view.headline}</p>
  </div>
  <div class="mode">
    <p>mode <strong class=${`tone ${view.mode_tone}`}>${view.mode}</strong></p>
    <p class="soft">${view.mode_note}</p>
  </div>
  ${view.trial && html`<div class="trial">
    <p class="tone doubtful">${Mark("doubtful")}${view.trial.text}</p>
    <p><strong class="left" data-left=${left}>${span(left)}</strong> left, ${view.trial.then}</p>
  </div>`}
  <div class="host">
    <p><strong>${view.host}</strong></p>
    <p class="soft">${view.now.slice(0, 10)} ${view.now.slice(11, 19)} UTC</p>
  </div>`;

const Scrolled = (label, grid) =>
  html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>${grid}</div>`;

const Table = (view) => html`<div class="part">
  <h2>${view.title}</h2>
  ${view.rows.length > 0 && Scrolled(view.title, html`<table>
    <thead><tr>${view.columns.map((each) => html`<th scope="col">${each}</th>`)}</tr></thead>
    <tbody>${view.rows.map((row, number) => {
      const tone = view.tones[number] || "plain";
      return html`<tr><td class=${`tone ${tone}`}>${Mark(tone)}${row[0]}</td>
        ${row.slice(1).map((cell) => html`<td>${cell}</td>`)}</tr>`;
    })}</tbody></table>`)}
  ${view.note && html`<p class="soft">${view.note}</p>`}
</div>`;

const Answered = (view) => html`
  <h2 class=${`tone ${view.tone}`}>${Mark(view.tone)}${view.title}</h2>
  ${view.rows.length > 0 && html`<dl>
    ${view.rows.map((each) => html`<dt>${each.label}</dt><dd>${Mark(each.tone)}${each.text}</dd>`)}
  </dl>`}
  ${view.tables.map(Table)}`;

const Facts = (facts) => facts.map((each) => html`<div class="fact">
  <p class="label">${each.label}</p>
  <p class=${`value tone ${each.tone}`}>${Mark(each.tone)}${each.value}</p>
  <p class="soft">${each.note}</p>
</div>`);

const Subject = (each) =>
  each.link ? html`<a href=${`/?q=${encodeURIComponent(each.link)}`}>${each.subject}</a>` : each.subject;

const Problems = (problems) => problems.length === 0
  ? html`<h2>What is wrong</h2><p class="tone good">${Mark("good")}Nothing.</p>`
  : html`<h2>What is wrong</h2>${Scrolled("What is wrong", html`<table>
    <thead><tr><th scope="col">kind</th><th scope="col">reason, and what mends it</th></tr></thead>
    <tbody>${problems.map((each) => html`<tr>
      <td class=${`tone ${each.tone}`}>${Mark(each.tone)}${each.kind}</td>
      <td><p><strong>${Subject(each)}</strong>${each.subject ? " " : ""}${each.reason}</p>
        ${each.mend && html`<p><code>${each.mend}</code></p>`}</td>
    </tr>`)}</tbody></table>`)}`;

const Events = (events, word) => html`
  <h2>Events <span class="span">${word}</span></h2>
  ${events.length > 0 && Scrolled("Events", html`<table>
    <thead><tr>${["at", "event", "with"].map((each) => html`<th scope="col">${each}</th>`)}</tr></thead>
    <tbody>${events.map((each) => html`<tr>
      <td class="time">${each.at.slice(11, 19)}</td>
      <td class=${`tone ${toneOf(each.level)}`}>${Mark(toneOf(each.level))}${each.event}</td>
      <td>${fieldsOf(each.fields)}</td>
    </tr>`)}</tbody></table>`)}`;

const toneOf = (level) => ({ error: "bad", critical: "bad", warning: "doubtful" })[level] || "plain";
const fieldsOf = (fields) => Object.entries(fields)
  .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(" ");

// -- the state, and what draws it ------------------------------------------------------------------------------

const drawn = new Set();

function draw(id, content) {
  const target = place(id);
  if (!drawn.has(id)) {
    target.textContent = ""; // what the server wrote makes room, once
    drawn.add(id);
  }
  render(html`${content}`, target);
}

let overview = null;
let receivedAt = 0;
let isAsking = false;
let isWanted = false;

const left = () => overview.trial && Math.max(0, overview.trial.left_s - Math.floor((Date.now() - receivedAt) / 1000));

function drawOverview() {
  draw("top", Top(overview, left()));
  draw("facts", Facts(overview.facts));
  draw("problems", Problems(overview.problems));
  draw("tables", overview.tables.map(Table));
  document.title = `${overview.word} · ${overview.host} · gatewayd`;
}

function drawAnswer(answer) {
  answered = answer;
  if (answer) draw("answer", Answered(answer));
  else draw("answer", "");
}

let answered = null;

// `asks`: also where the answer takes a walk through all registrations.
async function refresh(asks) {
  if (isAsking) { isWanted = true; return; }
  isAsking = true;
  try {
    const q = question();
    const withAnswer = q && (asks || answered === null || answered.is_short);
    const reply = await fetch(`/v1/overview${withAnswer ? `?q=${encodeURIComponent(q)}` : ""}`);
    if (!reply.ok) throw new Error(`HTTP status ${reply.status}`);
    const found = await reply.json();
    if (overview && found.overview.version !== overview.version) location.reload(); // a new page came with it
    [overview, receivedAt] = [found.overview, Date.now()];
    if (q === question() && (withAnswer || (answered && !q))) drawAnswer(found.answer);
    drawOverview();
    document.body.classList.remove("lost");
  } catch {
    lose();
  } finally {
    isAsking = false;
    if (isWanted) { isWanted = false; setTimeout(refresh, PAUSE_MS); }
  }
}

// The daemon does not answer: what is drawn is old, and says so.
function lose() {
  document.body.classList.add("lost");
  if (overview === null) return;
  const since = span(Math.round((Date.now() - receivedAt) / 1000));
  draw("top", Top({ ...overview, word: "NO ANSWER", tone: "bad", looks: `from gatewayd for ${since}: this is old`, looks_tone: "bad" }, left()));
  document.title = `NO ANSWER · ${overview.host} · gatewayd`;
}

// -- events ----------------------------------------------------------------------------------------------------

const events = [];
let timer = 0;

let stream = null;

// While it is seen: a browser has six connections to a host, and each open page holds one.
function follow() {
  if (stream) stream.close();
  if (document.hidden) return;
  events.length = 0;
  const since = new Date(Date.now() - 3_600_000).toISOString();
  stream = new EventSource(`/v1/events?since=${encodeURIComponent(since)}`);
  stream.onopen = () => drawEvents("live");
  stream.onerror = () => drawEvents("not live: asked for every 10 s");
  stream.onmessage = (message) => {
    events.unshift(JSON.parse(message.data));
    events.length = Math.min(events.length, MAX_EVENTS);
    clearTimeout(timer);
    timer = setTimeout(() => { drawEvents("live"); refresh(false); }, PAUSE_MS / 10);
  };
}

function drawEvents(word) {
  place("events").hidden = false;
  draw("events", Events(events, word));
}

// -- plots -----------------------------------------------------------------------------------------------------

const charts = new Map();
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const short = (number) => number >= 1e6 ? `${number / 1e6}M` : number >= 1e4 ? `${number / 1e3}k` : number;

const widthOf = (figure) => figure.clientWidth - 20;

// A minute without a sample is a gap in the line.
function columnsOf(history, words, seconds) {
  const since = Date.now() / 1000 - seconds;
  const columns = [[], ...words.map(() => [])];
  const add = (at, numbers) => [at, ...numbers].forEach((each, number) => columns[number].push(each));
  history.at.forEach((at, place) => {
    if (at < since) return;
    const before = columns[0].at(-1);
    if (before && at - before > 1.5 * history.step_s) add(before + history.step_s, words.map(() => null));
    add(at, words.map((word) => history[word][place]));
  });
  return columns;
}

function optionsOf(figure, words, seconds) {
  const axis = { stroke: () => colour("soft"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  return {
    width: widthOf(figure), height: HEIGHT, legend: { live: true }, cursor: { y: false, points: { size: 6 } },
    scales: {
      x: { range: () => [Date.now() / 1000 - seconds, Date.now() / 1000] },
      y: { range: (_, low, high) => [0, Math.max(1, (high || 0) * 1.1)] },
    },
    series: [
      { label: "UTC", value: (_, at) => at == null ? "–" : clock.format(at * 1000) },
      ...words.map((word) => ({
        label: word.replace("_", " "), stroke: () => colour(word), width: 1.5, dash: DASHES[word], points: { show: (chart, _, from, to) => to - from < 3, size: 5 },
        value: (_, number) => number == null ? "–" : number.toLocaleString("en"),
      })),
    ],
    axes: [
      { ...axis, size: 24, gap: 4, values: (_, ticks) => ticks.map((at) => clock.format(at * 1000)) },
      { ...axis, size: 46, space: 26, incrs: WHOLE, values: (_, ticks) => ticks.map(short) },
    ],
  };
}

async function plot() {
  if (!window.uPlot) return;
  const reply = await fetch("/v1/history").catch(() => null);
  if (!reply || !reply.ok) return;
  const history = await reply.json();
  for (const figure of document.querySelectorAll("figure.plot")) {
    const words = figure.dataset.series.split(" ");
    const columns = columnsOf(history, words, Number(figure.dataset.span));
    if (charts.has(figure)) { charts.get(figure).setData(columns); continue; }
    figure.querySelector("svg").remove();
    figure.classList.add("live");
    charts.set(figure, new window.uPlot(optionsOf(figure, words, Number(figure.dataset.span)), columns, figure));
  }
}

// -- begin -----------------------------------------------------------------------------------------------------

place("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const q = place("q").value.trim();
  history.pushState(null, "", q ? `/?q=${encodeURIComponent(q)}` : "/");
  answered = null;
  refresh(true).then(forget);
});
window.addEventListener("popstate", () => { place("q").value = question(); answered = null; refresh(true); });
window.addEventListener("resize", () => charts.forEach((chart, figure) => chart.setSize({ width: widthOf(figure), height: HEIGHT })));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.redraw(false)));
setInterval(() => overview && overview.trial && !document.body.classList.contains("lost") && draw("top", Top(overview, left())), 1_000);
setInterval(() => document.hidden || refresh(false), REFRESH_MS);
setInterval(() => document.hidden || plot(), HISTORY_MS);
document.addEventListener("visibilitychange", () => { follow(); if (!document.hidden) { refresh(false); plot(); } });

// A number that was asked for by mistake stays neither in the address nor in the box.
function forget() {
  if (answered && question() && answered.q === "") {
    history.replaceState(null, "", "/");
    place("q").value = "";
  }
}

refresh(true).then(forget);
follow();
plot();
