// Every run, and some of them beside each other.

import { all, get, part } from "./api.js";
import { h, problem, put, say, table } from "./dom.js";
import { FINAL, PHASES, STATUS, decimals, duration, metric, signed, when } from "./words.js";

/** Milliseconds between two looks at runs that are not done. */
const LOOK = 3000;

export const badge = (run) => h("span", { class: `badge status ${run.status.toLowerCase()}` }, STATUS[run.status]);

const took = (run) => (run.started_at && run.finished_at ? duration((new Date(run.finished_at) - new Date(run.started_at)) / 1000) : "");

export async function runs(main, { signal, go }) {
  const list = h("div", {});
  const compare = h("button", { type: "button", class: "primary", disabled: true, onclick: () => go(`#/compare/${chosen().map(part).join(",")}`) }, "Compare");
  const bar = h("div", { class: "row" }, h("p", { class: "soft grow", id: "compare-help" }, "Choose two or more finished runs to see them side by side."), compare);
  put(main, h("div", { class: "row" }, h("h1", { class: "grow", tabindex: "-1" }, "Runs"), h("a", { class: "button primary", href: "#/new" }, "New run")), bar, list);
  const picked = new Set();
  const chosen = () => [...picked];
  let shown = "";

  const show = (runs) => {
    const text = JSON.stringify(runs);
    if (text === shown) return;
    shown = text;
    bar.hidden = runs.filter((run) => run.status === "FINISHED").length < 2;
    if (runs.length === 0) {
      put(list, h("div", { class: "card empty" }, h("h2", {}, "No runs yet"), h("p", {}, "A run takes your examples and a model, and gives you a better model with numbers that say how much better."),
        h("p", {}, h("a", { class: "button primary", href: "#/new" }, "Start the first one"))));
      return;
    }
    put(list, h("ul", { class: "runs" }, runs.map((run) => {
      const id = `pick-${run.id}`;
      return h("li", { class: "card run" },
        h("div", { class: "pick" }, run.status === "FINISHED" && [h("input", { type: "checkbox", id, checked: picked.has(run.id), onchange: (event) => {
          if (event.target.checked) picked.add(run.id);
          else picked.delete(run.id);
          compare.disabled = picked.size < 2;
        } }), h("label", { for: id, class: "unseen" }, `Compare ${run.name}`)]),
        h("div", { class: "grow" }, h("a", { href: `#/runs/${run.id}`, class: "name" }, run.name), h("p", { class: "soft" }, `${run.spec.model ?? "mini"} · ${run.spec.loss ?? "auto"} · ${when(run.created_at)}`)),
        h("div", { class: "end" }, badge(run), h("p", { class: "soft" }, FINAL.includes(run.status) ? took(run) : run.reason ?? PHASES[run.phase])));
    })));
  };

  const look = async () => {
    try {
      const found = await all("/v1/runs", 200);
      if (signal.aborted) return;
      show(found);
      if (found.some((run) => !FINAL.includes(run.status))) setTimeout(look, LOOK);
    } catch (error) {
      if (!signal.aborted) put(list, problem(error));
    }
  };
  signal.addEventListener("abort", () => {
    shown = "";
  });
  await look();
}

/** Runs side by side: what came of them, and where they differ. */
export async function compare(main, { signal }, ids) {
  put(main, h("h1", { tabindex: "-1" }, "Runs side by side"), h("p", { class: "busy" }, h("span", { class: "spinner" }), " Reading their reports …"));
  const own = await Promise.all(ids.map(async (id) => {
    const run = await get(`/v1/runs/${part(id)}`, signal);
    const report = run.status === "FINISHED" ? await get(`/v1/runs/${part(id)}/artifact/files/report.json`, signal) : null;
    return { run, report };
  }));
  if (signal.aborted) return;
  // Made for each table: a link stands in one place only.
  const heads = () => own.map(({ run }) => h("a", { href: `#/runs/${run.id}` }, run.name));
  const row = (name, cells) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((content) => h("td", {}, content)));
  const names = [...new Set(own.flatMap(({ report }) => Object.keys(report?.metrics?.finetuned ?? report?.correlation?.finetuned ?? {})))];
  const value = (report, side, name) => report?.metrics?.[side]?.[name] ?? report?.correlation?.[side]?.[name];
  const results = names.filter((name) => own.some(({ report }) => typeof value(report, "finetuned", name) === "number")).map((name) => {
    const after = own.map(({ report }) => value(report, "finetuned", name));
    const best = Math.max(...after.filter(Number.isFinite));
    return row(metric(name), own.map(({ report }, place) => [
      h("span", { class: after[place] === best ? "best" : "" }, decimals(after[place]), after[place] === best && h("span", { class: "unseen" }, " (best)")), " ",
      h("small", { class: "soft" }, signed(after[place] - value(report, "pretrained", name)))]));
  });
  const fields = [...new Set(own.flatMap(({ run }) => Object.keys(run.spec)))].sort();
  const text = (field) => (field === undefined ? "–" : typeof field === "object" ? JSON.stringify(field) : String(field));
  const differing = fields.filter((field) => new Set(own.map(({ run }) => text(run.spec[field]))).size > 1);
  put(main, h("h1", { tabindex: "-1" }, "Runs side by side"),
    h("section", { class: "card", "aria-labelledby": "results" }, h("h2", { id: "results" }, "What came of them"),
      h("p", { class: "soft" }, "After training, and the change from before. Numbers compare only where the same data was measured."),
      table("What came of the runs", ["", ...heads()], [
        row("Status", own.map(({ run }) => badge(run))),
        ...results,
        row("Measured on", own.map(({ report }) => h("small", {}, report?.evaluated_on ?? "nothing"))),
        row("Time", own.map(({ run }) => took(run))),
      ])),
    h("section", { class: "card", "aria-labelledby": "fields" }, h("h2", { id: "fields" }, "Where they differ"),
      differing.length === 0 ? h("p", {}, "All of them were asked for in the same way.") : table("Fields that differ", ["", ...heads()], differing.map((field) => row(h("code", {}, field), own.map(({ run }) => text(run.spec[field])))))),
    h("p", {}, h("a", { href: "#/" }, "All runs")));
  say("The runs are shown side by side");
}
