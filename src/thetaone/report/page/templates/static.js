"use strict";
// The pictures are in the page; this only hides a series whose name in the legend is pressed.
for (const key of document.querySelectorAll(".keys button")) {
  key.addEventListener("click", () => {
    const shown = key.getAttribute("aria-pressed") !== "true";
    key.setAttribute("aria-pressed", String(shown));
    for (const mark of key.closest("figure").querySelectorAll("[data-series]")) {
      if (mark.dataset.series === key.dataset.series) mark.classList.toggle("off", !shown);
    }
  });
}
document.documentElement.setAttribute("data-figures", String(document.querySelectorAll(".plot").length));
