// Keys, for the admin key: to be made, rotated, disabled and enabled.

import { element, json } from "./page.js";

const section = document.getElementById("keys");
const form = document.getElementById("make");

function say(text) {
  document.getElementById("keys-note").textContent = text;
}

/** Do something, then show the keys as they are; a fault is told. */
async function change(path, options) {
  try {
    const answer = await json(path, options);
    const shown = document.getElementById("new-key");
    shown.hidden = !answer.key;
    shown.querySelector("output").value = answer.key ?? "";
    say("");
    await list();
    return true;
  } catch (error) {
    say(error.message);
    return false;
  }
}

function button(text, name, action) {
  const made = element("button", { type: "button", "aria-label": `${text} ${name}` }, text);
  made.addEventListener("click", action);
  return made;
}

function words(values) {
  const set = Object.entries(values ?? {}).filter(([, value]) => value !== null);
  return set.map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`).join(", ");
}

function line(key) {
  const path = `/admin/keys/${key.id}`;
  const expired = key.expires_at && new Date(key.expires_at) < new Date();
  const state = key.disabled ? "disabled" : expired ? "expired" : "valid";
  const buttons = element("span", { class: "buttons" },
    button("Rotate", key.name, () => change(`${path}/rotate`, { method: "POST" })),
    button(key.disabled ? "Enable" : "Disable", key.name, () => change(path, { method: "PATCH", json: { disabled: !key.disabled } })));
  const cells = [key.tenant, state, words(key.limits), words(key.budgets), buttons];
  return element("tr", {}, element("th", { scope: "row" }, key.name), ...cells.map((cell) => element("td", {}, cell)));
}

async function list() {
  const { keys } = await json("/admin/keys");
  section.querySelector("tbody").replaceChildren(...keys.map(line));
  section.hidden = false;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const of = form.elements;
  const number = (field) => (field.value === "" ? null : Number(field.value));
  const made = await change("/admin/keys", {
    method: "POST",
    json: {
      name: of.name.value,
      tenant: of.tenant.value,
      expires_at: of.expires.value ? `${of.expires.value}T00:00:00Z` : null,
      limits: of.requests.value ? { requests_per_minute: number(of.requests) } : null,
      budgets: of.day.value || of.month.value ? { day: number(of.day), month: number(of.month) } : null,
    },
  });
  if (made) form.reset();
});

/** Show the section to who has the admin key. */
export async function showKeys() {
  const { admin } = await json("/console/data/caller");
  if (admin) await list();
}
