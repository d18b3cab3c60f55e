// Draws the plots in the colours of the style sheet, and again when the colour scheme changes. The tables need none of it.
"use strict";
(function () {
  const named = "css:";

  function coloured(node, style) {
    if (typeof node === "string" && node.startsWith(named)) {
      return style.getPropertyValue(node.slice(named.length)).trim();
    }
    if (Array.isArray(node)) {
      return node.map((each) => coloured(each, style));
    }
    if (node !== null && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([key, each]) => [key, coloured(each, style)]));
    }
    return node;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const data of document.querySelectorAll("script.plot-specification")) {
      const place = data.parentElement.querySelector(".plot");
      const specification = coloured(JSON.parse(data.textContent), style);
      window
        .vegaEmbed(place, specification, { mode: "vega-lite", actions: false, renderer: "svg" })
        .catch((error) => { place.textContent = "The chart could not be drawn: " + error.message; });
    }
  }

  // A link to a folded part opens it.
  function unfold() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  }

  if (window.vegaEmbed) {
    draw();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }
  unfold();
  window.addEventListener("hashchange", unfold);
  // Paper cannot be clicked.
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) { part.open = true; }
  });
})();
