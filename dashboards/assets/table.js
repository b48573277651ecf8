// The table of runs: drawn from what the server sends; what is clicked in it becomes part of the address.
// Called by dashboards/pages/runs.py.
(() => {
  "use strict";
  let sort = ""; // columns with commas, as last asked for
  let chosen = []; // run ids

  const choose = (name, value) => window.dash_clientside.set_props({ state: name }, { value });

  function element(tag, properties, ...inside) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...inside);
    return made;
  }

  function button(label, ariaLabel, onclick, disabled = false) {
    return element("button", { type: "button", ariaLabel, onclick, disabled }, label);
  }

  // the children of a place, each with what it shows: what shows the same stays, with what a reader has selected in it
  function fill(place, parts) {
    parts.forEach(([shows, make], i) => {
      const key = JSON.stringify(shows);
      const was = place.children[i];
      if (was?.shows === key) return;
      const now = Object.assign(make(), { shows: key });
      if (was) was.replaceWith(now);
      else place.append(now);
    });
    while (place.children.length > parts.length) place.lastChild.remove();
  }

  // a click more: ascending, descending, not at all
  function order(name) {
    const words = sort ? sort.split(",") : [];
    const at = words.findIndex((word) => word === name || word === `-${name}`);
    if (at < 0) words.push(name);
    else if (words[at] === name) words[at] = `-${name}`;
    else words.splice(at, 1);
    sort = words.join(",");
    choose("sort", sort);
  }

  function head({ name, title, kind }, groups) {
    const label = groups ? title : button(title, `order by ${title}`, () => order(name));
    const cell = element("th", { scope: "col", className: kind }, label);
    cell.dataset.column = name;
    if (sort.split(",").includes(name)) cell.ariaSort = "ascending";
    if (sort.split(",").includes(`-${name}`)) cell.ariaSort = "descending";
    return cell;
  }

  function box(id) {
    const onchange = ({ target }) => {
      const others = chosen.filter((one) => one !== id);
      chosen = target.checked ? [...others, id] : others;
      choose("chosen", chosen.join(","));
    };
    return element("input", { type: "checkbox", checked: chosen.includes(id), ariaLabel: `choose ${id}`, onchange });
  }

  // the name of a run or of a group, which opens it
  function link(id, name, groups) {
    const onclick = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab
      event.preventDefault();
      if (groups) choose("group", null);
      choose(groups ? "filter" : "run", id);
    };
    const query = new URLSearchParams({ [groups ? "filter" : "run"]: id });
    return element("a", { href: `/runs?${query}`, onclick }, name);
  }

  function row({ id, cells }, { heads, groups }) {
    const made = heads.map(({ name, kind }, i) => {
      const opens = groups ? i === 0 : name === "run_id";
      const cell = element("td", { className: kind }, opens ? link(id, cells[i], groups) : element("div", {}, cells[i]));
      cell.dataset.column = name;
      return cell;
    });
    return element("tr", {}, ...(groups ? [] : [element("td", {}, box(id))]), ...made);
  }

  function pager(page, pages) {
    const to = (label, which, number) =>
      button(label, `${which} page`, () => choose("page", String(number)), number < 1 || number > pages || number === page);
    const onchange = ({ target }) => {
      target.value = Math.min(Math.max(Math.trunc(target.value) || page, 1), pages); // what else was typed is no page
      choose("page", target.value);
    };
    const field = element("input", { type: "number", min: 1, max: pages, value: page, ariaLabel: "page", onchange });
    const before = [to("«", "first", 1), to("‹", "previous", page - 1)];
    return element("div", {}, ...before, field, ` of ${pages} `, to("›", "next", page + 1), to("»", "last", pages));
  }

  function draw(table, picked) {
    const places = ["runs-heads", "runs-rows", "runs-pages"].map((id) => document.getElementById(id));
    if (!table || places.includes(null)) return;
    const { heads, rows, page, pages, groups } = table;
    const focused = document.activeElement;
    const here = places.some((place) => place.contains(focused));
    sort = table.sort;
    chosen = (picked || "").split(",").filter(Boolean);
    const first = groups ? [] : [["", () => element("td")]];
    fill(places[0], [...first, ...heads.map((one) => [[one, sort, groups], () => head(one, groups)])]);
    fill(places[1], rows.map((one) => [[one, heads, groups, chosen.includes(one.id)], () => row(one, table)]));
    fill(places[2], pages > 1 ? [[[page, pages], () => pager(page, pages)]] : []);
    if (!here || focused.isConnected) return;
    const same = (one) => one.ariaLabel === focused.ariaLabel && one.textContent === focused.textContent;
    places.flatMap((place) => [...place.querySelectorAll("a, button, input")]).find(same)?.focus({ preventScroll: true });
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, { table: { draw } });
})();
