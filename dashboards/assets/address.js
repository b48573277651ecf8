// The address of a page: routes, and the values of its inputs. Called by dashboards/pages/shell.py.
(() => {
  "use strict";
  let shown = null; // [pathname, search] that the page is of, as last routed or written
  let acted = false; // and whether the reader has touched it since: else the page itself changes what is written next

  const PLACES = ["run", "figure", "accuracy", "sweep"]; // that a reader goes to, and comes back from by the browser's button
  const OPTIONAL = "run"; // of which none is a place too: where there is no other yet, the page fills in the first

  for (const touch of ["pointerdown", "keydown"]) window.addEventListener(touch, () => { acted = true; }, true);

  function text(value) {
    if (value === null || value === undefined) return "";
    if (Array.isArray(value)) return value.length ? JSON.stringify(value) : "";
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }

  function route(pathname, search) {
    const { no_update } = window.dash_clientside;
    if (shown && shown[0] === pathname && shown[1] === search) return no_update; // written by an input
    shown = [pathname, search];
    acted = false;
    return shown;
  }

  function write(values, ids, defaults) {
    const { no_update, set_props } = window.dash_clientside;
    if (!ids.length || !shown || shown[0] !== window.location.pathname) return no_update;
    const query = new URLSearchParams(window.location.search);
    let moved = false;
    ids.forEach((id, i) => {
      const value = text(values[i]);
      const former = query.get(id.state) ?? text(defaults[id.state]);
      moved ||= acted && PLACES.includes(id.state) && value !== former && (former !== "" || id.state === OPTIONAL);
      if (value === text(defaults[id.state])) query.delete(id.state);
      else query.set(id.state, value);
    });
    const search = query.size ? `?${query}` : "";
    if (search === window.location.search) return no_update;
    if (acted) set_props("unread", { children: "" });
    acted = false;
    shown = [window.location.pathname, search];
    window.history[moved ? "pushState" : "replaceState"](window.history.state, "", search || window.location.pathname);
    set_props("url", { search, href: window.location.href }); // else it would put its own address back
    return search;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, { address: { route, write } });
})();
