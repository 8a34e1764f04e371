// Parts that all pages have: calls to the gateway, the dialog for the key, elements made of text.

/** The path that the gateway is reached under. */
export const root = document.documentElement.dataset.root;

/** An element with attributes and children; texts are always texts. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A failure that the gateway describes. */
export class Failed extends Error {
  constructor(message, traceId) {
    super(message);
    this.traceId = traceId;
  }
}

/** Ask the gateway; throws Failed for an answer that is an error, but for the status `also`. */
export async function ask(path, options = {}) {
  const headers = { "X-O11y-Console": "1", ...options.headers };
  const body = options.json === undefined ? undefined : JSON.stringify(options.json);
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(root + path, { ...options, headers, body, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed("the gateway can't be reached");
  }
  if (response.ok || response.status === options.also) return response;
  if (response.status === 401) openKey();
  const problem = await response.json().catch(() => ({}));
  const words = (problem.errors ?? []).map((each) => `${each.field}: ${each.message ?? each.detail ?? ""}`);
  const detail = problem.detail ?? `status ${response.status}`;
  throw new Failed([detail, ...words].join("; "), response.headers.get("x-trace-id"));
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

export function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return value >= 1 ? `${value.toFixed(1)} ms` : `${(value * 1000).toFixed(0)} µs`;
}

export function dollars(value) {
  if (value === null || value === undefined) return "unknown";
  return `${value.toLocaleString("en", { maximumSignificantDigits: 3 })} USD`;
}

export function say(text, isError = false) {
  const note = document.getElementById("note");
  note.textContent = text;
  note.className = isError ? "error" : "";
}

/** A description list of an object; what is nested becomes JSON. */
export function listed(values) {
  const list = element("dl");
  for (const [key, value] of Object.entries(values)) {
    const text = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
    list.append(element("dt", {}, key), element("dd", {}, text));
  }
  return list;
}

const dialog = document.getElementById("key");

function openKey() {
  if (!dialog.open) dialog.showModal();
}

document.getElementById("sign-in").addEventListener("click", openKey);
document.getElementById("key-close").addEventListener("click", () => dialog.close());
document.getElementById("key-forget").addEventListener("click", () => keep("DELETE"));
document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep("PUT", { key: document.getElementById("key-text").value.trim() });
});

async function keep(method, body) {
  try {
    await ask("/session", { method, json: body });
    location.reload();
  } catch (error) {
    dialog.close();
    say(error.message, true);
  }
}
