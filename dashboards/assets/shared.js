// What a figure that is drawn anew has in common with the one before is held once: Dash keeps some that were.
// Comes after figures.js, which paints a figure before it is compared.
(() => {
  "use strict";

  // what is there now; where it is as it was, what was: the former array, or a string in it
  function once(now, was) {
    if (now === was) return was;
    if (!now || !was || typeof now !== "object" || typeof was !== "object" || ArrayBuffer.isView(now)) return now;
    const isList = Array.isArray(now);
    const size = (of) => (isList ? of : Object.keys(of)).length;
    let same = isList === Array.isArray(was) && size(now) === size(was);
    for (const name of isList ? now.keys() : Object.keys(now)) {
      now[name] = once(now[name], was[name]);
      same &&= now[name] === was[name];
    }
    return same ? was : now;
  }

  function sharing(plotly) {
    const react = (plot, figure, ...parts) => {
      const before = new Map(plot.data?.map((trace) => [trace.uid, trace]));
      for (const trace of figure.data ?? []) {
        const was = before.get(trace.uid) ?? {};
        for (const name of Object.keys(trace)) trace[name] = once(trace[name], was[name]);
      }
      return plotly.react(plot, figure, ...parts);
    };
    return { ...plotly, react };
  }

  const { get, set } = Object.getOwnPropertyDescriptor(window, "Plotly");
  Object.defineProperty(window, "Plotly", { configurable: true, get, set: (plotly) => set(sharing(plotly)) });
})();
