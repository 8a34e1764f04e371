import { element, json, listed, say } from "./page.js";

function card(title, values) {
  return element("section", {}, element("h2", {}, title), listed(values));
}

async function show() {
  try {
    // a pipeline that can't answer has status 503, and still says how it is
    const [health, stats] = await Promise.all([json("/health", { also: 503 }), json("/stats")]);
    say(`The pipeline is ${health.status}.`, health.status !== "healthy");
    document.getElementById("services").replaceChildren(...Object.entries(health.services).map(([name, state]) => card(name, state)));
    document.getElementById("figures").replaceChildren(...Object.entries(stats).map(([name, values]) => card(`${name}, figures`, values)));
  } catch (error) {
    say(error.message, true);
  }
}

document.getElementById("note").textContent = "Asking the services …";
show();
