// A new run: bring data, see what it is, choose in plain words, start.

import { get, post, upload } from "./api.js";
import { cell, h, problem, prose, put, say, table } from "./dom.js";
import { KINDS, bytes, column, count } from "./words.js";

/** Fields that are chosen above, or are the server's. */
const HIDDEN = ["train_data", "datasets", "dataset_sampler", "output", "resume", "allow_urls"];

/** Models shown before somebody asks for more. */
const SHOWN = 3;

const SEVERITIES = { error: "Must be repaired", warning: "Worth a look", note: "Good to know" };

export function newRun(main, { signal, go }) {
  const state = { files: {}, inspection: null, goal: null, model: null, effort: null, expert: {} };
  const steps = h("div", { class: "steps" });
  put(main, h("h1", { tabindex: "-1" }, "New run"), h("p", { class: "lead" }, "Bring examples of what belongs together; you will see what they were taken for before anything starts."), steps);

  const data = h("section", { class: "card", "aria-labelledby": "data-title" });
  const seen = h("section", { "aria-labelledby": "seen-title", hidden: true });
  const choose = h("section", { "aria-labelledby": "choose-title", hidden: true });
  put(steps, data, seen, choose);
  showDrop();

  // 1: the file

  /** Asks for a file, and where one is there that could not be read (`trouble` says why), for what its columns are. */
  function showDrop(trouble, unread) {
    const input = h("input", {
      type: "file", id: "file", class: "unseen",
      accept: ".csv,.tsv,.jsonl,.ndjson,.json,.parquet,.txt,.zip",
      onchange: () => input.files[0] && take(input.files[0]),
    });
    const drop = h("div", { class: "drop" },
      h("p", { class: "big" }, h("label", { for: "file", class: "button primary" }, "Choose a file"), input, h("span", {}, " or drop one here")),
      h("p", { class: "soft" }, "A table (CSV, JSONL, Parquet), lines of text, or a zip of pictures: a folder for each class, or a table that names them."));
    drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
    });
    put(data, h("h2", { id: "data-title" }, step(1), "Your data"), drop, trouble, unread && columns(unread, look),
      h("details", {}, h("summary", {}, "What should the file look like?"), h("dl", { class: "kinds" },
        [["anchor,positive", "A question and its answer, a title and its text: for search."],
          ["text,label", "Items and the group they belong to: for sorting and for finding alike ones."],
          ["sentence1,sentence2,score", "Two texts and how similar they are."],
          ["image,label", "Names of pictures that lie beside the table, all in one zip."]].map(([head, text]) =>
          [h("dt", {}, h("code", {}, head)), h("dd", {}, text)]))));
  }

  /** Asks what the columns of a file are; `use` takes the file that says so. */
  function columns(file, use) {
    const id = `columns-${file.id}`;
    const input = h("input", { id, value: file.columns, placeholder: "anchor=name,positive=description", autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-help` });
    return h("form", { onsubmit: (event) => {
      event.preventDefault();
      use({ ...file, columns: input.value.trim() });
    } },
      h("label", { for: id }, `Which column of ${file.name} is what?`), input,
      h("p", { class: "soft", id: `${id}-help` }, prose("By the names in its first row: `text=description`, `text=description,label=shelf`, `anchor=question,positive=answer`.")),
      h("p", {}, h("button", {}, "Look again")));
  }

  function look(file) {
    state.files.train_data = file;
    return lookAt(file.name);
  }

  /** Looks at the files that are there; where they cannot be used, `name` is to blame. */
  async function lookAt(name) {
    try {
      await inspect();
    } catch (error) {
      if (signal.aborted) return;
      seen.hidden = choose.hidden = true;
      showDrop(unusable(name, error), state.files.train_data);
    }
  }

  async function take(file) {
    const bar = h("progress", { max: file.size || 1, value: 0, "aria-label": `Bringing ${file.name}` });
    const words = h("p", { class: "soft" }, `Bringing ${file.name}, ${bytes(file.size)} …`);
    put(data, h("h2", { id: "data-title" }, step(1), "Your data"), words, bar);
    seen.hidden = choose.hidden = true;
    try {
      const there = await upload(file, (done) => {
        bar.value = done;
      }, signal);
      state.files = { train_data: there };
    } catch (error) {
      if (!signal.aborted) showDrop(unusable(file.name, error));
      return;
    }
    await lookAt(file.name);
  }

  /** What was said of a file's columns; queries have those of the data unless something else is said of them. */
  function columnsOf(field, file) {
    return file.columns ?? (field === "query_data" ? state.files.train_data.columns : undefined);
  }

  /** The files as a request names them. */
  function named() {
    const name = ([field, file]) => [field, columnsOf(field, file) ? `${file.id}:${columnsOf(field, file)}` : file.id];
    return Object.fromEntries(Object.entries(state.files).map(name));
  }

  async function inspect() {
    const names = Object.values(state.files).map((file) => file.name);
    put(data, h("h2", { id: "data-title" }, step(1), "Your data"),
      h("p", { class: "busy" }, h("span", { class: "spinner" }), ` Looking at ${names.join(", ")} …`));
    say("Looking at the file");
    state.inspection = await post("/v1/inspections", named(), { signal });
    const { goals, models, efforts } = state.inspection.suggestion;
    [state.goal, state.model, state.effort] = [goals[0], models[0], efforts[0]];
    showFiles();
    showSeen();
    await showChoices();
    seen.querySelector("h2").focus();
    say(`${state.files.train_data.name} was taken for: ${KINDS[state.inspection.kind]}. ${findingsSentence(state.inspection.findings)}`);
  }

  /** The files that are there; of one that could not be read, why. */
  function showFiles(unread) {
    const file = state.files.train_data;
    put(data, h("h2", { id: "data-title" }, step(1), "Your data"),
      h("p", { class: "file" }, h("strong", {}, file.name), h("span", { class: "soft" }, ` ${bytes(file.bytes)} `),
        h("button", { type: "button", class: "quiet", onclick: () => {
          seen.hidden = choose.hidden = true;
          showDrop();
        } }, "Take another file")),
      h("details", { open: Boolean(file.columns) }, h("summary", {}, "Its columns mean something else"), columns(file, look)),
      h("details", { open: Boolean(unread || state.files.query_data || state.files.index_data) }, h("summary", {}, "I have separate data to measure with"),
        h("p", { class: "soft" }, "Without it some rows of the file are kept aside. Queries are a file of the same columns; what they search may be one of its own, with other columns."),
        further("query_data", "Queries", unread), further("index_data", "What they search", unread)));
  }

  /** A file to measure with, or where one can be brought. */
  function further(field, label, unread) {
    const file = state.files[field];
    const trouble = unread?.field === field && unusable(file.name, unread.error);
    if (!file) {
      const input = h("input", { type: "file", id: field, onchange: async () => {
        const brought = input.files[0];
        if (!brought) return;
        input.disabled = true;
        try {
          await measureWith(field, await upload(brought, () => {}, signal));
        } catch (error) {
          showFiles();
          data.append(unusable(brought.name, error));
        }
      } });
      return h("p", {}, h("label", { for: field }, label), input);
    }
    const leave = async () => {
      delete state.files[field];
      try {
        await inspect();
      } catch (error) {
        seen.hidden = choose.hidden = true;
        showFiles();
        data.append(problem(error));
      }
    };
    return h("div", {},
      h("p", {}, label, " ", h("strong", {}, file.name), " ", h("button", { type: "button", class: "quiet", onclick: leave }, "Leave it out")),
      trouble,
      h("details", { open: Boolean(trouble || columnsOf(field, file)) }, h("summary", {}, "Its columns mean something else"),
        columns({ ...file, columns: columnsOf(field, file) }, (told) => measureWith(field, told))));
  }

  /** Measures with a file. Where it cannot be used nothing goes on before its columns are told, or the file that it belongs to is brought. */
  async function measureWith(field, file) {
    state.files[field] = file;
    try {
      await inspect();
    } catch (error) {
      if (signal.aborted) return;
      seen.hidden = choose.hidden = true;
      showFiles({ field, error });
    }
  }

  // 2: what it was taken for

  function showSeen() {
    const own = state.inspection;
    const facts = [
      count(own.rows, "row"),
      own.texts && count(own.texts, "different text"),
      own.pictures && count(own.pictures, "different picture"),
      own.classes && count(own.classes, "label"),
    ].filter(Boolean);
    const rows = own.first.map((row) => h("tr", {}, h("th", { scope: "row" }, String(row.line)),
      own.columns.map((_, place) => h("td", {}, row.cells[place] ? cell(row.cells[place]) : ""))));
    put(seen, h("h2", { id: "seen-title", tabindex: "-1" }, step(2), "What it was taken for"),
      h("div", { class: "card" },
        h("p", { class: "big", id: "kind" }, h("strong", {}, KINDS[own.kind] ?? own.kind)),
        h("p", {}, facts.map((fact, place) => [place ? " · " : "", fact])),
        h("p", { class: "soft" }, prose(own.description)),
        h("h3", {}, "The first rows"),
        table("The first rows", ["Line", ...own.columns.map(column)], rows)),
      findings(own.findings));
    seen.hidden = false;
  }

  // 3: what to do with it

  async function showChoices() {
    const own = state.inspection.suggestion;
    const fields = await get("/v1/fields", signal);
    const name = h("input", { id: "name", autocomplete: "off", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]{0,99}", placeholder: "made up for you", "aria-describedby": "name-help" });
    const trouble = h("div", {});
    const start = h("button", { class: "primary large" }, "Start training");
    const blocked = state.inspection.findings.some((finding) => finding.severity === "error");
    start.disabled = blocked;
    const models = own.models.map((model, place) => radio("model", model, place === 0, model.download ? "is downloaded first" : "no download"));
    const form = h("form", { onsubmit: submit },
      fieldset("What should the model learn?", own.goals.map((goal, place) => radio("goal", goal, place === 0))),
      fieldset("Which model should it start from?", models.slice(0, SHOWN),
        models.length > SHOWN && h("details", {}, h("summary", {}, `${models.length - SHOWN} more models`), h("div", { class: "choices" }, models.slice(SHOWN)))),
      fieldset("How thorough?", own.efforts.map((effort, place) => radio("effort", { ...effort, description: count(effort.fields.epochs, "pass", "passes") + " over the data" }, place === 0))),
      h("ul", { class: "reasons soft" }, own.reasons.map((reason) => h("li", {}, reason))),
      h("div", { class: "card" },
        h("label", { for: "name" }, "Name of the run"), name, h("p", { class: "soft", id: "name-help" }, "Letters, digits, dots, dashes. Optional.")),
      h("details", { class: "card expert" }, h("summary", {}, "Expert settings"), expert(fields)),
      blocked && h("div", { class: "notice bad" }, "The data must be repaired first; see above."),
      trouble, h("p", {}, start));
    put(choose, h("h2", { id: "choose-title" }, step(3), "What to do with it"), form);
    choose.hidden = false;

    async function submit(event) {
      event.preventDefault();
      start.disabled = true;
      put(trouble);
      try {
        const run = await post("/v1/runs", { spec: spec(fields), ...(name.value && { name: name.value }) },
          { signal, headers: { "idempotency-key": token } });
        go(`#/runs/${run.id}`);
      } catch (error) {
        token = crypto.getRandomValues(new Uint32Array(4)).join("-");
        put(trouble, problem({ title: "The run was not started", message: error.message }));
        start.disabled = false;
      }
    }
  }

  // Sent again with the same token a request is the same run.
  let token = crypto.getRandomValues(new Uint32Array(4)).join("-");

  function radio(kind, choice, chosen, note) {
    const id = `${kind}-${choice.name}`;
    return h("div", { class: "choice" },
      h("input", { type: "radio", name: kind, id, checked: chosen, onchange: () => {
        state[kind] = choice;
        choose.querySelectorAll("[data-field]").forEach(hint);
      } }),
      h("label", { for: id }, h("strong", {}, choice.title), choice.description && h("span", {}, choice.description), note && h("small", {}, note)));
  }

  function chosen() {
    return { ...state.inspection.suggestion.fields, ...state.goal.fields, ...state.model.fields, ...state.effort.fields };
  }

  /** What an expert's field holds unless something is typed into it. */
  function hint(input) {
    const value = chosen()[input.dataset.field] ?? JSON.parse(input.dataset.default);
    input.placeholder = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  function expert(fields) {
    const rows = fields.filter((field) => !HIDDEN.includes(field.name) && !field.name.endsWith("_data")).map((field) => {
      const id = `field-${field.name}`;
      const input = h("input", { id, "data-field": field.name, "data-default": JSON.stringify(field.default ?? null), autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-help`,
        oninput: () => {
          state.expert[field.name] = input.value;
        } });
      hint(input);
      return h("div", { class: "field" }, h("label", { for: id }, h("code", {}, field.name)), input, h("p", { class: "soft", id: `${id}-help` }, prose(field.description)));
    });
    const filter = h("input", { type: "search", id: "filter", placeholder: "learning rate, loss …", oninput: () => {
      const words = filter.value.toLowerCase().replaceAll(" ", "_");
      rows.forEach((row) => {
        row.hidden = !row.textContent.toLowerCase().replaceAll(" ", "_").includes(words);
      });
    } });
    return [h("p", { class: "soft" }, "Everything a run can be told. Empty fields keep what is shown in grey."),
      h("label", { for: "filter" }, "Find a setting"), filter, h("div", { class: "fields" }, rows)];
  }

  function spec(fields) {
    const spec = { ...chosen(), ...named() };
    for (const [name, text] of Object.entries(state.expert)) {
      if (text.trim() === "") continue;
      const type = fields.find((field) => field.name === name).type;
      spec[name] = parsed(text.trim(), type, name);
    }
    return spec;
  }
}

/** A value as the field's type has it; what cannot be read goes as it is, and the server says what it expected. */
function parsed(text, type, name) {
  if (type === "a number" || type === "a whole number") return Number.isFinite(Number(text)) ? Number(text) : text;
  if (type.startsWith("`true`")) return { true: true, false: false }[text] ?? text;
  if (type === "a list of texts") return text.startsWith("[") ? json(text) : [text];
  if (type.startsWith("options")) {
    if (text.startsWith("{")) return json(text);
    const pairs = text.split(",").map((pair) => pair.split("=").map((side) => side.trim()));
    if (pairs.some((pair) => pair.length !== 2)) throw new Error(`${name}: expected name=value, separated by commas.`);
    const value = (side) => (side === "true" ? true : side === "false" ? false : side !== "" && Number.isFinite(Number(side)) ? Number(side) : side);
    return Object.fromEntries(pairs.map(([left, right]) => [left, value(right)]));
  }
  return text;
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const unusable = (name, error) => problem({ title: `${name} cannot be used`, message: error.message });

const step = (number) => h("span", { class: "step", "aria-hidden": "true" }, String(number));

const fieldset = (legend, ...children) => h("fieldset", {}, h("legend", {}, legend), h("div", { class: "choices" }, children[0]), children.slice(1));

function findingsSentence(found) {
  const serious = found.filter((finding) => finding.severity !== "note");
  if (serious.length === 0) return "Nothing in it looks wrong.";
  return `${count(serious.length, "thing")} worth a look.`;
}

function findings(found) {
  if (found.length === 0) return h("p", { class: "notice good" }, "Nothing in it looks wrong.");
  const one = (finding) => h("details", { class: `finding ${finding.severity}`, open: finding.severity === "error" },
    h("summary", {}, h("span", { class: "badge" }, SEVERITIES[finding.severity]), " ", prose(finding.message)),
    h("p", {}, prose(finding.consequence)),
    finding.examples.length > 0 && h("ul", { class: "places" }, finding.examples.map((place) =>
      h("li", {}, h("span", { class: "soft" }, `${place.path}, line ${place.line}: `), h("q", {}, place.text), place.note && ` – ${place.note}`))));
  return h("div", { class: "card" }, h("h3", {}, "What we noticed"), h("p", { class: "soft" }, findingsSentence(found)), found.map(one));
}
