// Budgets: what is spent and left, and when they run out at this period's pace.

import { element, json } from "./page.js";

/** Milliseconds since 1970 at which the period began, and at which it ends (UTC). */
function limits(period, now) {
  const day = [now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate()];
  if (period === "day") return [Date.UTC(...day), Date.UTC(day[0], day[1], day[2] + 1)];
  return [Date.UTC(day[0], day[1]), Date.UTC(day[0], day[1] + 1)];
}

function runsOut(budget, now) {
  if (budget.spent_usd >= budget.limit_usd) return "used up";
  if (budget.period === "total" || budget.spent_usd === 0) return "";
  const [begin, end] = limits(budget.period, now);
  const pace = budget.spent_usd / Math.max(1, now - begin);
  const at = Number(now) + (budget.limit_usd - budget.spent_usd) / pace;
  return at < end ? new Date(at).toLocaleString() : "not in this period";
}

export async function showBudgets() {
  const { budgets } = await json("/console/data/budgets");
  const section = document.getElementById("budgets");
  const now = new Date();
  section.querySelector("tbody").replaceChildren(...budgets.map((budget) => {
    const name = budget.key ? `${budget.key} (${budget.tenant})` : `tenant ${budget.tenant}`;
    const used = element("meter", { min: 0, max: budget.limit_usd || 1, value: budget.spent_usd, "aria-label": `used of ${name}` });
    const left = Math.max(0, budget.limit_usd - budget.spent_usd);
    return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, budget.period),
      element("td", { class: "number" }, `${budget.spent_usd.toFixed(6)} of ${budget.limit_usd}`), element("td", {}, used),
      element("td", { class: "number" }, left.toFixed(6)), element("td", {}, runsOut(budget, now)));
  }));
  section.hidden = !budgets.length;
}
