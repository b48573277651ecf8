// What a reader looks at in a figure: where points lie under one another, the app parts those that are in view.
// Of dashboards/pages/gallery.py.
(() => {
  "use strict";
  const heard = new WeakMap(); // figures, and what tells of their changes

  function seen({ meta, ...axes }) {
    if (!meta) return null; // no point lies under another
    const own = Object.entries(axes).filter(
      ([name, axis]) => /^[xy]axis\d*$/.test(name) && axis.autorange === false && axis.range.every(Number.isFinite),
    );
    const ranges = own.map(([name, { range }]) => [name.replace("axis", ""), [...range]]);
    return ranges.length ? [...meta, Object.fromEntries(ranges)] : null;
  }

  document.addEventListener("pointerover", ({ target }) => {
    const figure = target.closest?.(".dash-graph > .js-plotly-plot");
    if (!figure?.on || heard.get(figure) === figure._ev) return;
    heard.set(figure, figure._ev);
    const store = `${figure.parentElement.id}-seen`;
    const tell = () => {
      const data = seen(figure.layout);
      const told = window.dash_component_api.getLayout(store).props.data ?? null;
      if (JSON.stringify(data) !== JSON.stringify(told)) window.dash_clientside.set_props(store, { data });
    };
    figure.on("plotly_relayout", tell);
    figure.on("plotly_react", tell); // another figure is looked at as a whole
  });
})();
