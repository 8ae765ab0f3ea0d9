// Which view is shown: the part of the address after `#` says it, so that the back button and bookmarks work.

import { key } from "./api.js";
import { problem, put } from "./dom.js";
import { newRun } from "./new.js";
import { run } from "./run.js";
import { compare, runs } from "./runs.js";
import { signIn } from "./signin.js";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const out = document.getElementById("signout");

let leaving = new AbortController();
let expired = false;

const go = (address) => {
  if (location.hash === address) show();
  else location.hash = address;
};

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const signedIn = Boolean(key.get());
  nav.hidden = out.hidden = !signedIn;
  document.title = "Finetuner";
  if (!signedIn) {
    signIn(main, show, expired && "Your key does not count any more, or the server has forgotten it. Sign in again.");
    expired = false;
    return;
  }
  const [view, argument] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  for (const link of nav.children) {
    if (link.getAttribute("href") === (view === "new" ? "#/new" : "#/")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  scrollTo(0, 0);
  try {
    const context = { signal, go };
    if (view === "new") newRun(main, context);
    else if (view === "runs" && argument) await run(main, context, argument);
    else if (view === "compare" && argument) await compare(main, context, argument.split(","));
    else await runs(main, context);
    // Where a view begins is told to those who do not see it.
    if (!signal.aborted) (main.querySelector("h1") ?? main).focus({ preventScroll: true });
  } catch (error) {
    if (!signal.aborted) put(main, problem(error));
  }
}

addEventListener("hashchange", show);
addEventListener("signed-out", () => {
  if (!key.get() || nav.hidden) return;
  expired = true;
  key.clear();
  show();
});
out.addEventListener("click", () => {
  key.clear();
  show();
});

show();
