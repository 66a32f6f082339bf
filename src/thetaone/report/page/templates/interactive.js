"use strict";
// Colours are named by role ("@ink", "@mup/0.2") and read from the page's own variables, so that
// the figures follow the reader's light, dark or paper setting.
(() => {
  const specs = JSON.parse(document.getElementById("specifications").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const themes = JSON.parse(document.getElementById("themes").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const hidden = new Set(); // "figure\u0000series" that the reader switched off

  const colour = (text, theme) => {
    const [role, alpha] = text.slice(1).split("/");
    const hex = theme[role];
    if (!alpha) return hex;
    const part = (at) => parseInt(hex.slice(at, at + 2), 16);
    return `rgba(${part(1)},${part(3)},${part(5)},${alpha})`;
  };
  const resolve = (value, theme) => {
    if (typeof value === "string") return value.startsWith("@") ? colour(value, theme) : value;
    if (Array.isArray(value)) return value.map((item) => resolve(item, theme));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, theme)]));
  };
  // On a narrow page the row names would leave no room for the data: keep their end.
  const shorten = (layout, narrow) => {
    if (!narrow) return;
    layout.yaxis.ticktext = layout.yaxis.ticktext.map((t) => (t.length > 19 ? "…" + t.slice(-18) : t));
    layout.margin.l = 44;
  };
  const paint = (plot, theme) => {
    const { data, layout } = resolve(specs[plot.dataset.spec], theme);
    for (const trace of data) {
      trace.visible = !hidden.has(plot.dataset.figure + "\u0000" + trace.name);
    }
    layout.width = plot.clientWidth;
    shorten(layout, plot.clientWidth < 480);
    return Plotly.react(plot, data, layout, { displayModeBar: false });
  };
  const paintAll = (name) => {
    const theme = themes[name ?? (dark.matches ? "dark" : "light")];
    return Promise.all(plots.map((plot) => paint(plot, theme)));
  };

  for (const key of document.querySelectorAll(".keys button")) {
    key.addEventListener("click", () => {
      const name = key.dataset.figure + "\u0000" + key.dataset.series;
      const shown = hidden.delete(name) || !hidden.add(name);
      key.setAttribute("aria-pressed", String(shown));
      paintAll();
    });
  }
  const widths = new Map(plots.map((plot) => [plot, plot.clientWidth]));
  new ResizeObserver(() => {
    for (const plot of plots.filter((plot) => widths.get(plot) !== plot.clientWidth)) {
      widths.set(plot, plot.clientWidth);
      paint(plot, themes[dark.matches ? "dark" : "light"]);
    }
  }).observe(document.body);
  dark.addEventListener("change", () => paintAll());
  addEventListener("beforeprint", () => paintAll("light"));
  addEventListener("afterprint", () => paintAll());
  paintAll().then(() => document.documentElement.setAttribute("data-figures", String(plots.length)));
})();
