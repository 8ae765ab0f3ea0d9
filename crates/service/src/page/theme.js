// Runs before anything is drawn, so that a page never flashes in the other colours. What was chosen stays in this browser.
(() => {
  const order = ["auto", "light", "dark"];
  const words = { auto: "Auto colours, those of the system", light: "Light colours", dark: "Dark colours" };
  const stored = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  let theme = order.includes(stored()) ? stored() : "auto";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (!button) return;
    button.textContent = "◐ " + theme[0].toUpperCase() + theme.slice(1);
    button.setAttribute("aria-label", `◐ ${words[theme]}`);
  };
  show();
  addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try {
        localStorage.setItem("theme", theme);
      } catch {
        // A browser that keeps nothing shows it for as long as the page is open.
      }
      show();
    });
  });
})();
