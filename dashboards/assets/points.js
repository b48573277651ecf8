// A click on a run's point or curve opens the run, where there is a mouse: a finger's first touch asks what a point is.
(() => {
  "use strict";
  const { runs } = JSON.parse(document.getElementById("clock").textContent); // whether runs have a page
  const mouse = window.matchMedia("(hover: hover)");
  const heard = new WeakMap(); // figures, and what tells of their clicks

  function open({ points: [point] }) {
    const run = [point.customdata].flat()[0]; // of several under one marker the one that it is of
    if (typeof run !== "string" || !mouse.matches) return;
    window.history.pushState({}, "", `/runs?run=${encodeURIComponent(run)}`);
    window.dispatchEvent(new PopStateEvent("popstate", { state: {} }));
    window.scrollTo(0, 0);
  }

  if (!runs) return; // a table's have none
  document.addEventListener("pointerover", ({ target }) => {
    const figure = target.closest?.(".js-plotly-plot");
    if (!figure?.on || heard.get(figure) === figure._ev) return;
    heard.set(figure, figure._ev);
    figure.on("plotly_click", open);
  });
})();
