// Elements out of data. Texts become text nodes and attributes are set one by one: nothing that somebody brought is ever
// read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (["value", "checked", "disabled", "selected", "max", "open"].includes(name) && name in element) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: `h("p", {class: "soft"}, "text", other)`. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Puts these in place of what was in an element. */
export const put = (element, ...children) => {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

/** Says a sentence to screen readers. */
export const say = (sentence) => {
  document.getElementById("live").textContent = sentence;
};

/** A sentence in which what stands between backticks is code. */
export const prose = (text) => (text ?? "").split("`").map((piece, place) => (place % 2 ? h("code", {}, piece) : piece));

/** A sentence about what went wrong, and what can be done. */
export const problem = (error) =>
  h("div", { class: "notice bad", role: "alert" }, h("strong", {}, error.title ?? "That did not work"), h("p", {}, prose(error.message)));

/** A text or a picture of data, as the API gives it. */
export const cell = (item) => {
  if (item.picture === undefined) return h("span", { class: "text" }, item.text ?? "");
  if (!item.jpeg) return h("span", { class: "text" }, item.picture ?? "a picture");
  return h("img", { src: `data:image/jpeg;base64,${item.jpeg}`, alt: item.picture ?? "a picture", title: item.picture, class: "thumb" });
};

/** A table that scrolls by itself where it is wider than the screen. */
export const table = (label, head, rows) =>
  h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" },
    h("table", {},
      h("caption", { class: "unseen" }, label),
      h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows)));
