import { ask, element, json, say } from "./page.js";
import { drawSpend } from "./chart.js";
import { showBudgets } from "./budgets.js";
import { showKeys } from "./keys.js";

const form = document.getElementById("choose");
const table = document.getElementById("usage");

function chosen(more = {}) {
  return new URLSearchParams({ ...Object.fromEntries(new FormData(form)), ...more });
}

function numbers(...values) {
  return values.map((value) => element("td", { class: "number" }, value.toLocaleString()));
}

async function show() {
  try {
    const group = form.elements.group_by.value;
    const { usage, truncated } = await json(`/usage?${chosen()}`);
    const of = form.elements;
    const byDay = group === "day" ? usage : (await json(`/usage?${chosen({ group_by: "day" })}`)).usage;
    drawSpend(document.getElementById("chart"), byDay, of.from.value, of.to.value);
    const most = Math.max(...usage.map((each) => each.cost_usd), 1e-12);
    document.getElementById("group").textContent = group;
    table.tBodies[0].replaceChildren(...usage.map((each) => {
      const name = each[group] ?? "none";
      const share = element("meter", { min: 0, max: most, value: each.cost_usd, "aria-label": `cost of ${name} beside the largest` });
      return element("tr", {}, element("th", { scope: "row" }, name), element("td", { class: "number" }, each.cost_usd.toFixed(6)), element("td", {}, share),
        ...numbers(each.calls, each.failed, each.input_tokens, each.output_tokens, each.unpriced));
    }));
    const sum = (field) => usage.reduce((sum, each) => sum + each[field], 0);
    table.tFoot.replaceChildren(element("tr", {}, element("th", { scope: "row" }, "all"), element("td", { class: "number" }, sum("cost_usd").toFixed(6)), element("td"),
      ...numbers(sum("calls"), sum("failed"), sum("input_tokens"), sum("output_tokens"), sum("unpriced"))));
    table.hidden = !usage.length;
    say(usage.length ? (truncated ? "There are more groups than are shown." : "") : "Nothing was billed in these days.");
  } catch (error) {
    table.hidden = true;
    say(error.message, true);
  }
}

document.getElementById("csv").addEventListener("click", async () => {
  try {
    const response = await ask(`/usage?${chosen({ format: "csv" })}`);
    const address = URL.createObjectURL(await response.blob());
    element("a", { href: address, download: "usage.csv" }).click();
    URL.revokeObjectURL(address);
  } catch (error) {
    say(error.message, true);
  }
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
const today = new Date().toISOString().slice(0, 10);
form.elements.from.value = `${today.slice(0, 8)}01`;
form.elements.to.value = today;
await show();
try {
  await showBudgets();
  await showKeys();
} catch (error) {
  say(error.message, true);
}
