import { element, json, milliseconds, say } from "./page.js";
import { follow } from "./waterfall.js";

const form = document.getElementById("search");
const table = document.getElementById("found");
const place = document.getElementById("trace");
const here = new URL(location.href);
let following = null;

function filled() {
  return new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
}

function line(trace) {
  const address = new URL(location.href);
  address.searchParams.set("trace", trace.id);
  const link = element("a", { href: address.href }, trace.name || trace.id);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    history.replaceState(null, "", address);
    open(trace.id);
  });
  const cells = [new Date(trace.started * 1000).toLocaleString(), trace.service, link];
  return element("tr", {}, ...cells.map((cell) => element("td", {}, cell)), element("td", { class: "number" }, milliseconds(trace.duration)));
}

async function search() {
  try {
    const { query, traces } = await json(`/console/data/traces?${filled()}`);
    table.tBodies[0].replaceChildren(...traces.map(line));
    table.hidden = !traces.length;
    say(`${traces.length ? `${traces.length} traces, the newest first` : "No trace"}: ${query}`);
  } catch (error) {
    table.hidden = true;
    say(error.message, true);
  }
}

async function open(id) {
  following?.abort();
  const mine = new AbortController();
  following = mine;
  try {
    await follow(place, id, mine.signal);
    place.scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  history.replaceState(null, "", `${location.pathname}?${filled()}`);
  search();
});
for (const [name, value] of here.searchParams) {
  if (form.elements[name]) form.elements[name].value = value;
}
if (here.searchParams.has("trace")) open(here.searchParams.get("trace"));
search();
