// Figures in the colours of the reader's theme, and as files: for the app and the report alike.
(() => {
  "use strict";
  const pairs = JSON.parse(document.getElementById("colours").textContent); // [[on white, on black], ...]
  const maps = { dark: new Map(pairs), light: new Map(pairs.map(([light, dark]) => [dark, light])) };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const print = window.matchMedia("print");
  const SUPERSCRIPTS = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹";
  const SHEET = 680; // pixels across A4 and Letter within their margins, for which a browser lays no figure out anew
  let printing = false; // browsers say so before the medium changes
  const onPaper = () => printing || print.matches;
  const theme = () => (dark.matches && !onPaper() ? "dark" : "light");

  function exchanged(value, map) {
    if (typeof value === "string") return map.get(value) ?? value;
    const numbers = Array.isArray(value) && typeof value[0] === "number" && typeof value[1] === "number";
    return Array.isArray(value) && !numbers ? value.map((one) => exchanged(one, map)) : value;
  }

  // in place, and colours only: a name that reads like one stays
  function paint(node, map) {
    if (!node || typeof node !== "object" || ArrayBuffer.isView(node)) return;
    if (Array.isArray(node)) {
      if (node[0] && typeof node[0] === "object") node.forEach((one) => paint(one, map));
      return;
    }
    for (const key of Object.keys(node)) {
      const value = node[key];
      if (/color(scale|way)?$/i.test(key) && (typeof value === "string" || Array.isArray(value))) {
        node[key] = exchanged(value, map);
      } else paint(value, map);
    }
  }

  // what a point says: plotly's formats end at 1.23e+14, and a paper prints 1.23 × 10¹⁴ (names, which are bold or hold more than that, stay)
  function raise() {
    for (const words of document.querySelectorAll(".hoverlayer tspan")) {
      if (words.children.length || words.style.fontWeight) continue;
      words.textContent = words.textContent.replace(/(?<!\S)(\d\.\d\d)e([+-]\d+)(?!\S)/g, (_, mantissa, exponent) => {
        const power = String(Number(exponent)).replace(/./g, (sign) => SUPERSCRIPTS["-0123456789".indexOf(sign)]);
        return `${mantissa === "1.00" ? "" : `${mantissa}\u202f×\u202f`}10${power}`;
      });
    }
  }

  // what a reader hid or showed in the legend stays so: plotly forgets it when Dash draws a zoomed figure once more
  function keep(target, [first, second]) {
    const { data, layout } = Array.isArray(first) ? { data: first, layout: second } : first ?? {};
    const of = layout?.legend?.uirevision;
    if (!of || target.layout?.legend?.uirevision !== of) return;
    const were = new Map((target.data ?? []).map(({ uid, visible }) => [uid, visible]));
    for (const trace of data ?? []) if (were.get(trace.uid)) trace.visible = were.get(trace.uid);
  }

  function painting(plotly) {
    const drawn = (draw) => async (target, ...parts) => {
      keep(target, parts);
      parts.slice(0, 2).forEach((part) => paint(part, maps[theme()]));
      const plot = await draw(target, ...parts);
      plot.removeListener?.("plotly_hover", raise); // a figure that is drawn anew may have it, one that is gone has none
      plot.on?.("plotly_hover", raise);
      return plot;
    };
    return { ...plotly, newPlot: drawn(plotly.newPlot), react: drawn(plotly.react) };
  }

  if (window.Plotly) window.Plotly = painting(window.Plotly);
  else {
    let plotly; // the app loads it when it draws its first figure
    Object.defineProperty(window, "Plotly", { configurable: true, get: () => plotly, set: (it) => (plotly = painting(it)) });
  }

  function repaint() {
    for (const plot of document.querySelectorAll(".js-plotly-plot")) {
      const { width, autosize, ...layout } = plot.layout;
      const sheet = onPaper() && plot.clientWidth > SHEET;
      window.Plotly.react(plot, plot.data, { ...layout, ...(sheet ? { width: SHEET } : { autosize: true }) });
    }
  }
  dark.addEventListener("change", repaint);
  print.addEventListener("change", repaint);
  for (const [event, now] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(event, () => {
      printing = now;
      repaint();
    });
  }

  // a figure as a file, always as on white paper: made here, sent nowhere
  async function save(button) {
    const box = document.getElementById(button.dataset.of);
    const plot = box.matches(".js-plotly-plot") ? box : box.querySelector(".js-plotly-plot");
    const figure = structuredClone({ data: plot.data, layout: plot.layout });
    paint(figure, maps.light);
    const format = button.dataset.save;
    const height = figure.layout.height || 560;
    const url = await window.Plotly.toImage(figure, { format, width: 900, height, scale: format === "png" ? 2 : 1 });
    const link = document.createElement("a");
    link.href = url;
    link.download = `${button.dataset.name}.${format}`;
    link.click();
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-save]");
    if (button) save(button);
  });
})();
