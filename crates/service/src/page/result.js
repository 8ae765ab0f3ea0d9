// What came of a run: better or not, sample queries, a search of one's own, the model.

import { get, part, post } from "./api.js";
import { cell, h, problem, prose, put, say, table } from "./dom.js";
import { METRICS, bytes, count, decimals, duration, metric, signed } from "./words.js";

/** Metrics shown before somebody asks for all of them. */
const MAIN = ["mrr", "recall", "ndcg", "spearman", "pearson"];

const VERDICTS = {
  improved: ["good", "The model got better"],
  worse: ["bad", "The model got worse"],
  no_measurable_difference: ["", "No clear change"],
};

/** Hits of a search. */
const HITS = 8;

export async function result(place, run, signal) {
  put(place, h("p", { class: "busy" }, h("span", { class: "spinner" }), " Reading the report …"));
  const at = `/v1/runs/${part(run.id)}`;
  const [report, samples, artifact] = await Promise.all([
    get(`${at}/artifact/files/report.json`, signal),
    get(`${at}/examples`, signal),
    get(`${at}/artifact`, signal),
  ]);
  put(place, verdict(report), numbers(report), examples(samples.data), tryIt(at, run), download(at, artifact, report));
}

function verdict(report) {
  const [tone, title] = VERDICTS[report.verdict] ?? ["", report.correlation ? "What was measured" : "Done"];
  const training = `${count(report.training.steps, "step")} in ${duration(report.timing.train_seconds)}, ${count(report.training.examples, "example")}`;
  return h("section", { class: `verdict card ${tone}`, "aria-labelledby": "verdict" },
    h("h2", { id: "verdict" }, title), h("p", {}, prose(report.conclusion)),
    report.forgetting && h("p", { class: report.forgetting.forgot ? "warning" : "soft" }, prose(report.forgetting.conclusion)),
    h("p", { class: "soft" }, training, report.training.ended && `; ${report.training.ended}`));
}

function numbers(report) {
  const columns = report.metrics;
  if (!columns && !report.correlation) return null;
  const rows = columns
    ? Object.keys(columns.finetuned).map((name) => ({
      name,
      before: columns.pretrained[name], beforeRange: columns.pretrained_interval[name],
      after: columns.finetuned[name], afterRange: columns.finetuned_interval[name],
      change: columns.delta[name], changeRange: columns.interval[name],
    }))
    : Object.keys(report.correlation.finetuned).filter((name) => typeof report.correlation.finetuned[name] === "number").map((name) => ({
      name, before: report.correlation.pretrained[name], after: report.correlation.finetuned[name], change: report.correlation.finetuned[name] - report.correlation.pretrained[name],
    }));
  const range = (own, write) => own && h("small", { class: "soft range" }, `${write(own[0])} to ${write(own[1])}`);
  const tone = (row) => (row.changeRange ? (row.changeRange[0] > 0 ? "up" : row.changeRange[1] < 0 ? "down" : "") : row.change > 0 ? "up" : "down");
  const line = (row) => h("tr", {},
    h("th", { scope: "row" }, metric(row.name), METRICS[row.name]?.[1] && h("small", { class: "soft" }, METRICS[row.name][1])),
    h("td", {}, decimals(row.before), range(row.beforeRange, decimals)),
    h("td", {}, decimals(row.after), range(row.afterRange, decimals)),
    h("td", { class: tone(row) }, h("strong", {}, signed(row.change)), range(row.changeRange, signed)));
  const head = ["", "Before", "After", "Change"];
  const [main, more] = [rows.filter((row) => MAIN.includes(row.name)), rows.filter((row) => !MAIN.includes(row.name))];
  const changes = report.queries;
  const share = (own) => `${((100 * own) / changes.evaluated).toFixed(1)}%`;
  return h("section", { class: "card", "aria-labelledby": "numbers" }, h("h2", { id: "numbers" }, "Before and after"),
    h("p", { class: "soft" }, prose(report.evaluated_on), columns && `; the first ${columns.k} hits of each query count. Ranges hold the true value with 95 % confidence.`),
    table("Before and after", head, main.map(line)),
    more.length > 0 && h("details", {}, h("summary", {}, "All numbers"), table("All numbers, before and after", head, more.map(line))),
    changes && changes.evaluated > 0 && h("div", { class: "changes" },
      h("div", { class: "stack", "aria-hidden": "true" }, ["improved", "unchanged", "worsened"].map((name) => {
        const piece = h("span", { class: name });
        piece.style.width = share(changes[name]);
        return piece;
      })),
      h("p", {}, h("span", { class: "up" }, `${count(changes.improved, "query", "queries")} better`), ` · ${changes.unchanged.toLocaleString("en")} the same · `, h("span", { class: changes.worsened ? "down" : "" }, `${changes.worsened.toLocaleString("en")} worse`))),
    (report.further ?? []).map((further) => h("p", {}, h("strong", {}, further.name), `: ${further.conclusion}`)));
}

function examples(samples) {
  if (samples.length === 0) return null;
  const order = (side) => side.rank ?? Infinity;
  const sort = (sample) => (order(sample.after) < order(sample.before) ? "better" : order(sample.after) > order(sample.before) ? "worse" : "same");
  const words = { better: "Better", worse: "Worse", same: "The same" };
  const rank = (side) => (side.rank ? `right answer at place ${side.rank}` : "right answer not among the first");
  const hits = (side, label) => h("div", { class: "side" }, h("h4", {}, label, " ", h("small", { class: "soft" }, rank(side))),
    h("ol", { class: "hits" }, side.hits.map((hit) => h("li", { class: hit.relevant ? "right" : "" }, cell(hit.item), hit.relevant && h("span", { class: "mark" }, "right")))));
  return h("section", { class: "card", "aria-labelledby": "samples" }, h("h2", { id: "samples" }, "Sample queries"),
    h("p", { class: "soft" }, "Queries that gained most, that lost most, and some that stayed."),
    samples.map((sample, place) => h("details", { class: "sample", open: place === 0 },
      h("summary", {}, h("span", { class: `badge ${sort(sample)}` }, words[sort(sample)]), " ", cell(sample.query)),
      h("p", { class: "wanted" }, h("span", { class: "soft" }, "Wanted: "), cell(sample.expected)),
      h("div", { class: "sides" }, hits(sample.before, "Before"), hits(sample.after, "After")))));
}

function tryIt(at, run) {
  const field = h("input", { type: "search", id: "query", autocomplete: "off", placeholder: "Ask in your own words" });
  const texts = h("textarea", { id: "texts", rows: "5", placeholder: "one text a line" });
  const found = h("div", { id: "found" });
  const button = h("button", { class: "primary" }, "Search");
  // Which document is shown next to those who have no words, and how many are known to be there.
  let [turn, known] = [0, 1];
  const search = async (body) => {
    button.disabled = true;
    put(found, h("p", { class: "busy" }, h("span", { class: "spinner" }), " Asking both models; the first time they are opened and read everything, which takes a while …"));
    const own = texts.value.split("\n").map((line) => line.trim()).filter(Boolean);
    try {
      const answer = await post(`${at}/search`, { ...body, k: HITS, ...(own.length > 0 && { texts: own }) });
      if (own.length === 0) known = answer.documents;
      show(answer);
      say(`Found ${answer.finetuned.length} hits of each model`);
    } catch (error) {
      put(found, problem(error));
    } finally {
      button.disabled = false;
    }
  };
  const show = (answer) => {
    const before = new Map(answer.pretrained.map((hit, place) => [hit.document, place + 1]));
    const moved = (hit, place) => {
      const old = before.get(hit.document);
      if (old === undefined) return h("span", { class: "move up" }, "new");
      if (old === place + 1) return null;
      return old > place + 1 ? h("span", { class: "move up" }, `↑ ${old - place - 1}`) : h("span", { class: "move down" }, `↓ ${place + 1 - old}`);
    };
    const side = (label, hits, changes) => h("div", { class: "side" }, h("h3", {}, label), h("ol", { class: "hits" }, hits.map((hit, place) =>
      h("li", {}, cell(hit.item), h("span", { class: "score" }, decimals(hit.score), changes && moved(hit, place),
        texts.value.trim() === "" && h("button", { type: "button", class: "quiet small", "aria-label": `more like this, number ${place + 1}`, onclick: () => search({ like: hit.document }) }, "more like this"))))));
    put(found, answer.like && h("p", { class: "wanted" }, h("span", { class: "soft" }, "Like: "), cell(answer.like)),
      h("p", { class: "soft" }, prose(`Among ${answer.description}.`)),
      h("div", { class: "sides" }, side("Before", answer.pretrained, false), side("After", answer.finetuned, true)));
  };
  return h("section", { class: "card", "aria-labelledby": "try" }, h("h2", { id: "try" }, "Try it"),
    h("form", { role: "search", onsubmit: (event) => {
      event.preventDefault();
      if (field.value.trim()) search({ query: field.value });
    } },
    h("label", { for: "query" }, "Search with both models"),
    h("div", { class: "row" }, h("div", { class: "grow" }, field), button),
    h("details", {}, h("summary", {}, "Search in texts of my own"), h("label", { for: "texts" }, "Texts to search, one a line"), texts,
      h("p", { class: "soft" }, "Left empty, the documents of the run are searched.")),
    h("p", { class: "soft" }, "No words for it? ", h("button", { type: "button", class: "quiet small", onclick: () => search({ like: turn++ % known }) }, "Find what is like one of the documents"))),
    found);
}

function download(at, artifact, report) {
  const size = Object.values(artifact.files).reduce((sum, file) => sum + file.bytes, 0);
  const trouble = h("div", {});
  const button = h("button", { type: "button", class: "primary", id: "download", onclick: async () => {
    try {
      // The browser saves an address to disk as it comes; a key in a header would mean the whole model in memory.
      const link = await post(`${at}/artifact/link`);
      const anchor = h("a", { href: link.url, download: "" });
      document.body.append(anchor);
      anchor.click();
      anchor.remove();
      put(trouble);
    } catch (error) {
      put(trouble, problem(error));
    }
  } }, `Download the model (${bytes(size)})`);
  return h("section", { class: "card", "aria-labelledby": "model" }, h("h2", { id: "model" }, "The model"),
    h("p", {}, "A folder in the layout of sentence-transformers, with checksums, a model card and the whole report. It started from ", h("code", {}, report.model), "."),
    button, trouble,
    h("details", {}, h("summary", {}, "Use it"), h("pre", { tabindex: "0" }, `finetuner pull ${artifact.run} --output model\nfinetuner search --model model --input texts.csv "what I look for"\n\n# or, in Python\nfrom sentence_transformers import SentenceTransformer\nmodel = SentenceTransformer("model")`)),
    h("details", {}, h("summary", {}, "Files"), table("Files of the model", ["File", "Size"], Object.entries(artifact.files).map(([name, file]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, name)), h("td", {}, bytes(file.bytes)))))));
}
