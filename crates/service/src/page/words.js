// What is said to people: names, numbers, times.

export const KINDS = {
  pairs: "Pairs that belong together",
  triplets: "Pairs with wrong answers",
  labelled: "Items with labels",
  scored: "Pairs with a similarity",
  single: "Items alone",
  scored_triplets: "Answers with a teacher's scores",
  labelled_pairs: "Pairs with a label",
};

export const COLUMNS = { anchor: "Query", positive: "Match", item: "Item", label: "Label", first: "First", second: "Second", score: "Score" };
export const column = (name) => COLUMNS[name] ?? name.replace("negative", "Wrong answer");

export const METRICS = {
  mrr: ["Mean reciprocal rank", "1 if the right answer always comes first, 0.5 if second, and so on"],
  precision: ["Precision", "Share of what is shown that is right"],
  recall: ["Recall", "Share of the right answers that are shown"],
  f1: ["F1", "Precision and recall in one number"],
  average_precision: ["Average precision", "How high the right answers stand"],
  map: ["Mean average precision", "How high the right answers stand"],
  ndcg_at_10: ["nDCG of the first ten", ""],
  accuracy_at_1: ["Right answer first", "Share of queries whose first hit is right"],
  ndcg: ["nDCG", "How high the right answers stand; the first places count most"],
  hit_rate: ["Hit rate", "Share of queries with a right answer among those shown"],
  hit: ["Hit rate", "Share of queries with a right answer among those shown"],
  r_precision: ["R-precision", "Precision at as many places as there are right answers"],
  spearman: ["Rank correlation", "Spearman: 1 if the order of similarities is that of the scores"],
  pearson: ["Linear correlation", "Pearson"],
  train_loss: ["Training loss", "lower is better"],
  val_loss: ["Validation loss", "lower is better"],
  epoch_loss: ["Loss of an epoch", "lower is better"],
  learning_rate: ["Learning rate", ""],
};
export const metric = (name) => METRICS[name]?.[0] ?? name.replaceAll("_", " ");

export const STATUS = { CREATED: "Waiting", STARTED: "Running", FINISHED: "Finished", FAILED: "Failed", CANCELLED: "Cancelled" };
export const FINAL = ["FINISHED", "FAILED", "CANCELLED"];

export const PHASES = {
  waiting: "waiting for its turn",
  starting: "starting",
  evaluating: "measuring",
  training: "training",
  publishing: "storing the model",
  cancelling: "saving and stopping",
  ended: "done",
};

/** A text in which uploaded files have the names that people know. */
export const named = (text) => text.replaceAll(/data\/file-[0-9a-z]{26}\//g, "");

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export const decimals = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : "–");

export const signed = (value, digits = 3) => (value > 0 ? "+" : "") + decimals(value, digits);

export const compact = (value) => {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 100) return value.toFixed(0);
  if (size >= 0.01) return Number(value.toPrecision(3)).toString();
  return value.toExponential(1);
};

export const bytes = (number) => {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${unit === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
};

export const duration = (seconds) => {
  if (!Number.isFinite(seconds)) return "";
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return minutes < 5 ? `${minutes} min ${rest} s` : `${minutes} min`;
  return `${rest} s`;
};

export const when = (time) => new Date(time).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
