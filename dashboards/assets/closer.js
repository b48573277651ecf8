// What a reader looks at in a figure: where points lie under one another, the app parts those that are in view.
// Of dashboards/pages/gallery.py.
(() => {
  "use strict";
  const heard = new WeakMap(); // figures, and what tells of their changes

  function seen({ legend, ...axes }) {
    const own = Object.entries(axes).filter(
      ([name, axis]) => /^[xy]axis\d*$/.test(name) && axis.autorange === false && axis.range.every(Number.isFinite),
    );
    const ranges = own.map(([name, { range }]) => [name.replace("axis", ""), [...range]]);
    return ranges.length && legend ? [legend.uirevision, Object.fromEntries(ranges)] : null;
  }

  document.addEventListener("pointerover", ({ target }) => {
    const figure = target.closest?.(".dash-graph > .js-plotly-plot");
    if (!figure?.on || heard.get(figure) === figure._ev) return;
    heard.set(figure, figure._ev);
    let told = "null";
    const tell = () => {
      const data = seen(figure.layout);
      if (JSON.stringify(data) === told) return;
      told = JSON.stringify(data);
      window.dash_clientside.set_props(`${figure.parentElement.id}-seen`, { data });
    };
    figure.on("plotly_relayout", tell);
    figure.on("plotly_react", tell); // another figure is looked at as a whole
  });
})();
