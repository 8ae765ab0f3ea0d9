// Sign in with a key.

import { Refused, get, key } from "./api.js";
import { h, problem, put } from "./dom.js";

/** Asks for a key; calls `done` once one counts. */
export function signIn(main, done, note) {
  const field = h("input", { id: "key", name: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false", placeholder: "ft_…" });
  const trouble = h("div", {});
  const button = h("button", { class: "primary" }, "Sign in");
  const form = h("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      put(trouble);
      button.disabled = true;
      key.set(field.value.trim());
      try {
        const current = await get("/v1/keys/current");
        done(current);
      } catch (error) {
        key.clear();
        const unknown = error instanceof Refused && error.status === 401;
        put(trouble, problem(unknown ? { title: "This key does not count", message: "It is not known here, has ended or was revoked. Look for a blank or a missing letter, or ask whoever runs this server for another one." } : error));
        field.focus();
      } finally {
        button.disabled = false;
      }
    },
  }, h("label", { for: "key" }, "Your key"), field, h("p", { class: "soft" }, "It stays in this tab and is forgotten when you close it."), trouble, button);
  const elsewhere = h("div", {});
  get("/v1/login").then((ways) => ways.openid && put(elsewhere,
    h("p", {}, h("a", { class: "button primary", href: "/login/openid" }, "Sign in with your organisation")),
    h("p", { class: "soft" }, "or with a key:"))).catch(() => {}); // A key will do.
  put(main, h("div", { class: "signin" },
    h("img", { src: "/page/icon.svg", alt: "", width: "56", height: "56" }),
    h("h1", { tabindex: "-1" }, "Make search understand your data"),
    h("p", { class: "lead" }, "Bring examples, get a model that finds what your people mean, and see with numbers whether it got better. Everything stays on this server."),
    note && h("p", { class: "notice" }, note),
    h("div", { class: "card" }, elsewhere, form),
    h("details", {}, h("summary", {}, "Where do I get a key?"),
      h("p", {}, "The first one was printed when the server was started for the first time. Whoever has it makes more with ", h("code", {}, "POST /v1/keys"), "."),
      h("p", {}, "A program that shows you a code (", h("code", {}, "finetuner login"), ") is let in ", h("a", { href: "/activate" }, "on its own page"), "."))));
  field.focus();
}
