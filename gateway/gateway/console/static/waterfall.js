// A trace as a waterfall that grows while its spans arrive.

import { dollars, element, json, listed, milliseconds, root } from "./page.js";

const POLL_MS = 400;
const WAIT_MS = 20000; // longest time to wait for spans
const QUIET_MS = 2500; // a trace that has its root and hasn't grown for so long is complete
const HUES = { gateway: 215, "llm-proxy": 165, "vector-svc": 275, "inference-svc": 40 };

function hue(service) {
  let sum = 0;
  for (const character of service) sum = (sum * 31 + character.codePointAt(0)) % 360;
  return HUES[service] ?? sum;
}

/** The spans, each below its parent, with its depth. */
export function tree(spans) {
  const known = new Set(spans.map((span) => span.id));
  const children = new Map();
  const roots = [];
  for (const span of spans) {
    if (span.parent && span.parent !== span.id && known.has(span.parent)) {
      if (!children.has(span.parent)) children.set(span.parent, []);
      children.get(span.parent).push(span);
    } else roots.push(span);
  }
  const found = [];
  const seen = new Set();
  const waiting = roots.toReversed().map((span) => [span, 0]);
  while (waiting.length) {
    const [span, depth] = waiting.pop();
    if (seen.has(span)) continue;
    seen.add(span);
    found.push([span, depth]);
    for (const child of (children.get(span.id) ?? []).toReversed()) waiting.push([child, depth + 1]);
  }
  for (const span of spans) if (!seen.has(span)) found.push([span, 0]);
  return found;
}

/** A link to the trace in Grafana's Explore, where there is one. */
function inGrafana(id) {
  const grafana = document.documentElement.dataset.grafana;
  if (!grafana) return null;
  const tempo = { type: "tempo", uid: "tempo" };
  const query = { refId: "A", datasource: tempo, queryType: "traceql", query: id };
  const pane = { datasource: tempo.uid, queries: [query], range: { from: "now-24h", to: "now" } };
  const panes = encodeURIComponent(JSON.stringify({ a: pane }));
  return element("a", { href: `${grafana}/explore?schemaVersion=1&panes=${panes}`, rel: "noreferrer" }, "Open in Grafana");
}

/** What the span is about, in a few words: tokens, cost, documents. */
function remarks(span) {
  const of = span.attributes;
  const words = [];
  const tokens = [of["gen_ai.usage.input_tokens"], of["gen_ai.usage.output_tokens"]];
  if (tokens[0] !== undefined) words.push(`${tokens[0]} → ${tokens[1] ?? 0} tokens`);
  if (of["o11y.cost.usd"] !== undefined) words.push(dollars(of["o11y.cost.usd"]));
  if (of["o11y.retrieval.top_similarity"] !== undefined) {
    words.push(`best similarity ${of["o11y.retrieval.top_similarity"].toFixed(2)}`);
  }
  const batch = of["o11y.batch.requests.mean"];
  if (batch !== undefined) words.push(`batch of ${batch.toFixed(1)}`);
  const at = (name) => span.events.find((event) => event.name === name)?.at;
  if (at("admitted") !== undefined) words.push(`waited ${milliseconds(at("admitted") - span.begin)}`);
  if (at("first token") !== undefined) words.push(`first token after ${milliseconds(at("first token") - span.begin)}`);
  return words.join(", ");
}

/** A mark on the track for each event, such as the first token. */
function marks(span, whole) {
  return span.events.map((event) => {
    const mark = element("span", { class: "mark", title: event.name });
    mark.style.left = `${(100 * event.at) / whole}%`;
    return mark;
  });
}

function row(span, depth, whole, isOpen) {
  const color = `hsl(${hue(span.service)} 60% 45%)`;
  const dot = element("span", { class: "dot", "aria-hidden": "true" });
  dot.style.background = color;
  const name = element("span", { class: "name", title: `${span.service}: ${span.name}` }, dot, span.name, " ");
  if (span.error) name.append(element("span", { class: "error" }, "failed "));
  name.append(element("span", { class: "faint" }, [span.service, remarks(span)].filter(Boolean).join(" · ")));
  name.style.paddingLeft = `${Math.min(depth, 12) * 0.8}rem`;
  const bar = element("span", { class: span.error ? "bar failed" : "bar" });
  bar.style.left = `${(100 * span.begin) / whole}%`;
  bar.style.width = `${(100 * span.duration) / whole}%`;
  bar.style.background = color;
  const track = element("span", { class: "track", "aria-hidden": "true" }, bar, ...marks(span, whole));
  const took = element("span", { class: "number" }, milliseconds(span.duration));
  const details = element("details", { "data-span": span.id }, element("summary", {}, name, track, took));
  details.open = isOpen;
  const fill = () => {
    if (!details.open || details.querySelector(".inside")) return;
    const inside = element("div", { class: "inside" });
    if (span.error) inside.append(element("p", { class: "error" }, span.error));
    inside.append(listed({ service: span.service, kind: span.kind, span: span.id, "starts after": milliseconds(span.begin), ...span.attributes }));
    for (const event of span.events) {
      inside.append(element("h3", {}, `${event.name}, after ${milliseconds(event.at)}`), listed(event.attributes));
    }
    details.append(inside);
  };
  details.addEventListener("toggle", fill);
  fill();
  return element("li", {}, details);
}

export function show(place, id, spans, state) {
  const open = new Set([...place.querySelectorAll("details[open]")].map((each) => each.dataset.span));
  const focused = document.activeElement?.closest?.("details")?.dataset.span;
  const whole = Math.max(0.001, ...spans.map((span) => span.begin + span.duration));
  const list = element("ol", { class: "spans" });
  for (const [span, depth] of tree(spans)) list.append(row(span, depth, whole, open.has(span.id)));
  const failed = spans.filter((span) => span.error).length;
  const words = `${spans.length} spans${failed ? `, ${failed} failed` : ""}${spans.length ? `, ${milliseconds(whole)}` : ""}${state}`;
  const link = element("a", { href: `${root}/console/traces?trace=${id}` }, id);
  place.replaceChildren(element("h2", {}, "Trace"), element("p", { class: "faint" }, `${words}. `, link, " ", inGrafana(id) ?? ""), list);
  if (focused) place.querySelector(`details[data-span="${CSS.escape(focused)}"] > summary`)?.focus();
}

/** Show a trace, and go on until it is complete or its time is over. */
export async function follow(place, id, signal) {
  const began = performance.now();
  let grew = began;
  let count = -1;
  for (;;) {
    const { spans } = await json(`/console/data/traces/${id}`, { signal });
    const now = performance.now();
    if (spans.length !== count) {
      count = spans.length;
      grew = now;
      show(place, id, spans, ", more may come");
    }
    const hasRoot = spans.some((span) => !span.parent);
    if ((hasRoot && now - grew > QUIET_MS) || now - began > WAIT_MS) {
      show(place, id, spans, spans.length ? "" : ": none has arrived");
      place.dataset.complete = hasRoot;
      return spans;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
