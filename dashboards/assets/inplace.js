// What a page says, drawn in place: what stays the same stays, with what a reader has selected, unfolded or reached in it.
// A place has what it says in data-said: [tag, attributes, parts] or words each. Of dashboards/pages/inplace.py.
(() => {
  "use strict";
  const OWN = ["open"]; // attributes that a reader changes

  const words = (part) => (typeof part === "string" ? part : part[2].map(words).join(""));

  // a part by its tag, a row of a table by its first cell too; of several alike by the order in which they come
  function keys(parts) {
    const seen = {};
    return parts.map((part) => {
      const [tag, , inside] = typeof part === "string" ? ["#"] : part;
      const key = tag === "tr" ? `tr ${words(inside[0] ?? "")}` : tag;
      seen[key] = (seen[key] ?? 0) + 1;
      return `${key} ${seen[key]}`;
    });
  }

  function fill(node, part) {
    if (typeof part === "string") {
      if (node.data !== part) node.data = part;
      return;
    }
    const [, attributes, inside] = part;
    for (const name of node.getAttributeNames()) {
      if (!(name in attributes) && !OWN.includes(name)) node.removeAttribute(name);
    }
    for (const [name, value] of Object.entries(attributes)) {
      if (node.getAttribute(name) !== value) node.setAttribute(name, value);
    }
    draw(node, inside);
  }

  function draw(place, parts) {
    const now = keys(parts);
    const wanted = new Set(now);
    const there = new Map([...place.childNodes].map((node) => [node.key, node]));
    for (const [key, node] of there) if (!wanted.has(key)) node.remove();
    parts.forEach((part, i) => {
      const node = there.get(now[i]) ?? Object.assign(made(part), { key: now[i] });
      const before = place.childNodes[i] ?? null;
      if (node !== before) (node.parentNode && place.moveBefore ? place.moveBefore : place.insertBefore).call(place, node, before);
      fill(node, part);
    });
  }

  function made(part) {
    return typeof part === "string" ? document.createTextNode("") : document.createElement(part[0]);
  }

  const observer = new MutationObserver((changes) => {
    for (const place of new Set(changes.map(({ target }) => target))) draw(place, JSON.parse(place.dataset.said || "[]"));
  });
  observer.observe(document, { subtree: true, attributeFilter: ["data-said"] });

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("button[data-clear]"); // what is chosen is let go of
    if (button) window.dash_clientside.set_props({ state: button.dataset.clear }, { value: "" });
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-page]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab
    event.preventDefault();
    window.history.pushState({}, "", link.href);
    window.dispatchEvent(new PopStateEvent("popstate", { state: {} }));
    window.scrollTo(0, 0);
  });
})();
