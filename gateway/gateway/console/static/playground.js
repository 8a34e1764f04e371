import { ask, dollars, element, json, milliseconds, root, say } from "./page.js";
import { events } from "./events.js";
import { follow } from "./waterfall.js";

const form = document.getElementById("ask");
const stop = document.getElementById("stop");
const session = `console-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
let running = null;

function kind() {
  return form.elements.kind.value;
}

function choose() {
  for (const each of form.querySelectorAll("[data-for]")) {
    each.hidden = !each.dataset.for.split(" ").includes(kind());
  }
}

/** The call that the form asks for: its path and body. */
function call(model) {
  const of = form.elements;
  const prompt = of.prompt.value;
  const tokens = Number(of.tokens.value);
  const temperature = Number(of.temperature.value);
  if (kind() === "local") {
    return ["/local-inference", { prompt, max_length: tokens, temperature, stream: true }];
  }
  if (kind() === "pipeline") {
    return ["/full-pipeline", { query: prompt, max_tokens: tokens, use_context: of.context.checked }];
  }
  const body = { message: prompt, temperature, max_tokens: tokens, stream: true };
  return ["/chat", model ? { ...body, model } : body];
}

/** The call for other programs: curl, and OpenAI's SDK for a chat. */
function code(path, body) {
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const address = location.origin + root;
  const lines = [element("pre", {tabindex: "0"}, `curl -N ${address}${path} -H 'content-type: application/json' \\\n  -d '${quoted}'`)];
  if (path === "/chat") {
    const model = body.model ? JSON.stringify(body.model) : '""  # the default';
    lines.push(element("pre", {tabindex: "0"}, `import openai

client = openai.OpenAI(base_url="${address}/v1", api_key="none")
answer = client.chat.completions.create(
    model=${model},
    messages=[{"role": "user", "content": ${JSON.stringify(body.message)}}],
    temperature=${body.temperature},
    max_tokens=${body.max_tokens},
)
print(answer.choices[0].message.content)`));
  }
  return element("details", {}, element("summary", {}, "The call as code"), ...lines);
}

/** The figures of an answer, of a metadata event or a whole answer. */
function figures(list, values) {
  list.replaceChildren();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined) {
      list.append(element("div", {}, element("dt", {}, name), element("dd", {}, String(value))));
    }
  }
}

async function answer(model, signal) {
  const [path, body] = call(model);
  const text = element("div", { class: "text", "aria-live": "polite" });
  const numbers = element("dl", { class: "figures" });
  const trace = element("section", { class: "trace", "aria-label": "Trace of this answer" });
  const sources = element("div");
  const section = element("section", {}, element("h2", {}, model || kind()), text, numbers, sources, code(path, body), trace);
  document.getElementById("answers").append(section);
  const began = performance.now();
  let first = null;
  let following = null;
  const followed = (id) => {
    // a fault of the trace store is shown where the trace would be
    following = follow(trace, id, signal).catch((error) => {
      if (error.name !== "AbortError") trace.replaceChildren(element("p", { class: "error" }, error.message));
    });
  };
  const told = (metadata) => {
    const usage = metadata.usage ?? {};
    const seconds = (performance.now() - began) / 1000;
    const writing = seconds - (first ?? 0) / 1000;
    figures(numbers, {
      model: metadata.model,
      provider: metadata.provider,
      "first token": first === null ? null : milliseconds(first),
      whole: milliseconds(seconds * 1000),
      "tokens in": usage.prompt_tokens,
      "tokens out": usage.completion_tokens,
      "tokens/s": usage.completion_tokens && writing > 0 ? (usage.completion_tokens / writing).toFixed(1) : null,
      cost: dollars(metadata.cost_usd),
    });
  };
  try {
    const response = await ask(path, { method: "POST", json: body, signal, headers: { "X-Session-Id": session } });
    followed(response.headers.get("x-trace-id"));
    if (path === "/full-pipeline") pipeline(await response.json(), text, numbers, sources);
    else {
      for await (const { event, data } of events(response)) {
        if (event === "metadata") told(data);
        else if (event === "error") text.append(element("p", { class: "error" }, data.detail ?? "failed"));
        else {
          first ??= performance.now() - began;
          const piece = data.content ?? data.text ?? "";
          text.append(text.textContent ? piece : piece.trimStart());
        }
      }
    }
  } catch (error) {
    const words = error.name === "AbortError" ? "stopped" : error.message;
    text.append(element("p", { class: "error" }, words));
    if (error.traceId) followed(error.traceId);
  }
  await following;
}

function pipeline(body, text, numbers, sources) {
  const { results, summary } = body;
  text.append(results.openai_response?.response ?? "no answer of the LLM");
  const local = results.local_model_response?.responses?.[0] ?? results.local_model_response?.response;
  if (local) sources.append(element("h3", {}, "The local model's answer"), element("div", { class: "text" }, String(local.text ?? local)));
  figures(numbers, {
    whole: milliseconds(summary.total_duration_seconds * 1000),
    cost: dollars(summary.total_cost_usd),
    "tokens of the LLM": summary.openai_tokens_used,
    "local tokens": summary.local_tokens_generated,
  });
  const found = results.similarity_search?.results ?? [];
  if (found.length) {
    const list = element("ol");
    for (const each of found) {
      const likeness = each.similarity === undefined ? "" : `${each.similarity.toFixed(3)} `;
      list.append(element("li", {}, element("strong", {}, likeness), each.document));
    }
    sources.append(element("h3", {}, "Documents found, and their similarity"), list);
  }
  for (const stage of body.stages) {
    if (stage.error) sources.append(element("p", { class: stage.status === "error" ? "error" : "faint" }, `${stage.name}: ${stage.error}`));
  }
}

form.addEventListener("change", choose);
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  running?.abort();
  const mine = new AbortController();
  running = mine;
  stop.disabled = false;
  document.getElementById("answers").replaceChildren();
  const models = kind() === "chat" ? form.elements.models.value.split(",").map((each) => each.trim()) : [""];
  say("");
  await Promise.all(models.slice(0, 4).map((model) => answer(model, mine.signal)));
  if (running === mine) stop.disabled = true;
});
stop.addEventListener("click", () => running?.abort());
choose();

try {
  const { data } = await json("/v1/models");
  document.getElementById("models").append(...data.map((model) => element("option", { value: model.id })));
} catch (error) {
  say(`The models can't be listed: ${error.message}`, true);
}
