// The public API, as every other program uses it.

// The key lies in `sessionStorage` and goes out as `Authorization: Bearer …`, never as a cookie. So no other site can make
// this browser act in somebody's name (there is nothing a browser adds by itself, hence no CSRF), the key is gone with the
// tab, and the API has one way to say who calls. What a cookie that scripts cannot read would protect better against is a
// foreign script on this page; the content security policy lets none run, and nothing here is ever read as HTML.
const KEY = "finetuner-key";

/** Bytes of a file that are sent at once. */
const PIECE = 8 << 20;

/** Pauses in milliseconds before something is tried again. */
const PAUSES = [500, 1000, 2000, 4000, 8000];

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  clear: () => sessionStorage.removeItem(KEY),
};

/** What the server refused, or that it could not be reached. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.message);
    this.status = status;
    this.code = problem.code;
    this.param = problem.param;
  }
}

const sleep = (milliseconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });

async function send(method, path, { body, headers = {}, signal } = {}) {
  const all = { ...headers };
  if (key.get()) all.authorization = `Bearer ${key.get()}`;
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: all, signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError" || signal?.aborted) throw error;
    throw new Refused(0, { code: "unreachable", message: "The server cannot be reached. Is it running, and is this machine online? Then try again." });
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let found;
  try {
    found = JSON.parse(text).error;
  } catch {
    found = null;
  }
  if (answer.status === 401) dispatchEvent(new CustomEvent("signed-out"));
  throw new Refused(answer.status, found ?? { code: "unknown", message: `The server answered ${answer.status}.` });
}

/** Asks for JSON. */
export const get = async (path, signal) => (await send("GET", path, { signal })).json();

/** Sends JSON; gives the answer, if there is one. */
export const post = async (path, value, { signal, headers } = {}) => {
  const answer = await send("POST", path, {
    body: value === undefined ? undefined : JSON.stringify(value),
    headers: { "content-type": "application/json", ...headers },
    signal,
  });
  return answer.status === 204 ? null : answer.json();
};

export const remove = (path) => send("DELETE", path);

/** One part of a path. */
export const part = encodeURIComponent;

/** Every item of a list, page by page, up to `most`. */
export async function all(path, most = 500) {
  const items = [];
  let after = "";
  while (items.length < most) {
    const page = await get(`${path}${path.includes("?") ? "&" : "?"}limit=100${after && `&after=${part(after)}`}`);
    items.push(...page.data);
    if (!page.has_more) break;
    after = page.next;
  }
  return items;
}

/** Brings a file to the server piece by piece, and goes on where it broke off; `progress` hears of bytes done. */
export async function upload(file, progress, signal) {
  let there = await post("/v1/files", { name: file.name, bytes: file.size }, { signal });
  let failures = 0;
  while (!there.ready) {
    progress(there.received);
    try {
      const answer = await send("PATCH", `/v1/files/${part(there.id)}`, {
        body: file.slice(there.received, there.received + PIECE),
        headers: { "upload-offset": String(there.received), "content-type": "application/octet-stream" },
        signal,
      });
      there = await answer.json();
      failures = 0;
    } catch (error) {
      const passing = error.status === 0 || error.status === 409 || error.status >= 500 || error.code === "piece_cut_off";
      if (!passing || failures >= PAUSES.length) throw error;
      await sleep(PAUSES[failures], signal);
      failures += 1;
      there = await get(`/v1/files/${part(there.id)}`, signal);
    }
  }
  progress(file.size);
  return there;
}

/** Follows a run: `hear` gets every event in order, until the run has ended. Comes back by itself where the stream breaks off. */
export async function follow(run, hear, signal) {
  let last = 0;
  let failures = 0;
  while (!signal.aborted) {
    try {
      const answer = await send("GET", `/v1/runs/${part(run)}/events`, {
        headers: { accept: "text/event-stream", "last-event-id": String(last) },
        signal,
      });
      if (answer.status === 204) return;
      failures = 0;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
          if (!data) continue;
          const event = JSON.parse(data);
          last = event.sequence;
          hear(event);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status >= 400 && error.status < 500) throw error;
      await sleep(PAUSES[Math.min(failures, PAUSES.length - 1)], signal).catch(() => {});
      failures += 1;
    }
  }
}
