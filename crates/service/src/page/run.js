// One run: how far it is, its curves, what it says, and at its end what came of it.

import { follow, get, part, post, remove } from "./api.js";
import { chart } from "./chart.js";
import { h, problem, put, say } from "./dom.js";
import { result } from "./result.js";
import { badge } from "./runs.js";
import { FINAL, PHASES, STATUS, bytes, duration, named, when } from "./words.js";

/** Milliseconds between two drawings. */
const DRAW = 300;

/** Lines of the log that are kept on the page. */
const LINES = 2000;

const isLoss = (name) => name.endsWith("_loss");
const isRate = (name) => name === "learning_rate";
const isMetric = (name) => ["mrr", "recall", "ndcg", "spearman"].some((own) => name === own || name.endsWith(`_${own}`));

export async function run(main, { signal, go }, id) {
  put(main, h("p", { class: "busy" }, h("span", { class: "spinner" }), " Looking for the run …"));
  let own = await get(`/v1/runs/${part(id)}`, signal);

  const status = h("span", { id: "status" });
  const phase = h("p", { id: "phase", class: "big" });
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const left = h("p", { class: "soft", id: "left" });
  const trouble = h("div", {});
  const cancel = h("button", { type: "button", onclick: async () => {
    cancel.disabled = true;
    await post(`/v1/runs/${part(id)}/cancel`).catch((error) => put(trouble, problem(error)));
    await reload();
  } }, "Cancel the run");
  const erase = h("button", { type: "button", class: "quiet danger", onclick: async () => {
    if (!confirm(`Delete the run "${own.name}" with its model? This cannot be undone.`)) return;
    try {
      await remove(`/v1/runs/${part(id)}`);
      go("#/");
    } catch (error) {
      put(trouble, problem(error));
    }
  } }, "Delete");
  const progress = h("section", { class: "card", "aria-label": "Progress" }, phase, bar, left, h("p", {}, cancel));
  const outcome = h("div", {});
  const losses = chart("Loss");
  const metrics = chart("How well it finds", { percent: true });
  const rates = chart("Learning rate");
  const log = h("pre", { class: "log", id: "log", tabindex: "0", role: "log", "aria-label": "What the run says" });
  const logs = h("details", { class: "card", open: !FINAL.includes(own.status) }, h("summary", {}, "What the run says"), log);
  const spec = h("details", { class: "card" }, h("summary", {}, "How it was asked for"), h("pre", { tabindex: "0" }, JSON.stringify(own.spec, null, 2)));
  put(main,
    h("p", {}, h("a", { href: "#/" }, "← All runs")),
    h("div", { class: "row" }, h("h1", { class: "grow", tabindex: "-1" }, own.name), status, erase),
    trouble, progress, outcome,
    h("div", { class: "charts", id: "charts" }, losses.element, metrics.element, rates.element), logs, spec);

  let ended = false;
  const show = async () => {
    put(status, badge(own));
    const final = FINAL.includes(own.status);
    progress.hidden = final;
    erase.hidden = !final;
    cancel.disabled = own.phase === "cancelling";
    document.title = `${STATUS[own.status]}: ${own.name} – Finetuner`;
    if (!final) {
      phase.textContent = own.phase === "waiting" && own.reason ? `Waiting: ${own.reason}` : sentence(PHASES[own.phase]);
      return;
    }
    if (ended) return;
    ended = true;
    say(`The run is ${STATUS[own.status].toLowerCase()}`);
    if (own.status === "FINISHED") await result(outcome, own, signal).catch((error) => !signal.aborted && put(outcome, problem(error)));
    else if (own.status === "FAILED") put(outcome, problem({ title: "The run failed", message: named(own.error?.message ?? "It said no more.") }), h("p", {}, h("a", { class: "button", href: "#/new" }, "Start another one")));
    else put(outcome, h("p", { class: "notice" }, own.checkpoint_step ? `Cancelled after ${own.checkpoint_step} steps.` : "Cancelled before the first step."));
  };
  const reload = async () => {
    own = await get(`/v1/runs/${part(id)}`, signal);
    await show();
  };
  await show();

  // What is heard is drawn a few times a second, however much there is.
  const values = {};
  let timer = null;
  let latest = null;
  let began = null;
  const draw = () => {
    timer = null;
    if (signal.aborted) return;
    const of = (chosen) => Object.fromEntries(Object.entries(values).filter(([name]) => chosen(name)).map(([name, points]) => [name, [...points].sort((a, b) => a[0] - b[0])]));
    losses.draw(of(isLoss));
    metrics.draw(of(isMetric));
    rates.draw(of(isRate));
    if (latest && !FINAL.includes(own.status)) showProgress();
  };
  const showProgress = () => {
    const { phase: name, done, total, note } = latest;
    phase.textContent = sentence(name === "train" ? "training" : name.replace("evaluate", "measuring"));
    if (total > 0) bar.value = done / total;
    const seconds = (new Date(latest.time) - began.time) / 1000;
    const rest = done > began.done ? ((total - done) * seconds) / (done - began.done) : NaN;
    const sized = name.endsWith(", MB") ? `${bytes(done * 1e6)} of ${bytes(total * 1e6)}` : `${done.toLocaleString("en")} of ${total.toLocaleString("en")}`;
    left.textContent = [sized, note, Number.isFinite(rest) && seconds > 1 && done < total && `about ${duration(rest)} left in this part`].filter(Boolean).join(" · ");
  };
  const hear = (event) => {
    if (event.event === "metric") {
      const points = (values[event.name] ??= new Map());
      points.set(event.step, event.value);
    } else if (event.event === "progress") {
      if (latest?.phase !== event.phase) began = { time: new Date(event.time), done: event.done };
      latest = event;
    } else {
      const text = event.event === "log" ? (event.level === "warning" ? `Warning: ${event.message}` : event.message) : event.event === "checkpoint" ? `Saved after step ${event.step}` : (STATUS[event.state] ?? event.state);
      const follows = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      log.append(h("span", { class: event.level === "warning" ? "warning" : "" }, h("time", { datetime: event.time, class: "soft" }, new Date(event.time).toLocaleTimeString("en-GB")), ` ${named(text)}\n`));
      while (log.childElementCount > LINES) log.firstElementChild.remove();
      if (follows) log.scrollTop = log.scrollHeight;
      if (event.event === "state") reload().catch(() => {});
    }
    timer ??= setTimeout(draw, DRAW);
  };
  follow(id, hear, signal).then(reload).catch((error) => !signal.aborted && put(trouble, problem(error)));
  main.append(h("p", { class: "soft" }, `Asked for ${when(own.created_at)} · ${own.id}`));
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);
