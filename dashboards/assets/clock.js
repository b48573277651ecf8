// The clock of the pages: it asks the app how it stands, and has the page follow when all asked before is answered.
// While the app is away it is asked ever less often, and what a reader asks of it waits. Of dashboards/pages/shell.py.
(() => {
  "use strict";
  const { app, every, hurried } = JSON.parse(document.getElementById("clock").textContent); // who made the page; seconds
  const RAREST = 60; // seconds between beats to an app that is away
  const PATIENCE = 20; // seconds for one that is busy
  const LOST = 60; // seconds after which what the clock asked is let go of
  const WARNED = 10; // seconds that a warning stays when nothing fails any more
  const TRIES = 3; // of what fails though the app answers
  const send = window.fetch.bind(window);
  const asked = new Map(); // what the app has yet to answer: since when, and whether the clock asked
  let waiting = []; // until it is back
  let heard = new Date();
  let misses = 0; // since then
  let ticks = 0;
  let beating = false;
  let held = false; // whether a reader drags in a figure: drawn anew, it would move below the lasso
  let due = 0; // when it is asked next
  let failed = 0; // when the app last warned of a request that failed

  function say(props) {
    if (!document.getElementById("state")) return; // the frame is not there yet
    for (const [id, one] of Object.entries(props)) window.dash_clientside.set_props(id, one);
  }

  async function stands() {
    try {
      const answer = await send("/beat", { cache: "no-store", signal: AbortSignal.timeout(1000 * PATIENCE) });
      return answer.status === 401 ? {} : await answer.json(); // a token is asked for: it is another app
    } catch {
      return null;
    }
  }

  async function beat() {
    if (beating || document.hidden) return; // nobody looks; when somebody does, it is asked at once
    beating = true;
    const now = await stands();
    beating = false;
    if (now && now.app !== app) {
      window.location.reload(); // the numbers of what is shown were another app's
      return;
    }
    const before = misses;
    misses = now ? 0 : misses + 1;
    if (now) follow(now);
    else miss(before);
    due = Date.now() + 1000 * Math.min(every * 2 ** misses, RAREST);
  }

  function follow({ name, said }) {
    heard = new Date();
    const longest = late();
    const more = longest < PATIENCE ? "" : `; no answer for ${Math.round(longest)} s to what this page asked`;
    say({ name: { children: name }, state: { children: said + more, className: more && "warning" } });
    waiting.splice(0).forEach((go) => go());
    tick("tick");
  }

  // for how many seconds the oldest request has had no answer, though the app has; one of the clock's is let go of
  function late() {
    const now = Date.now();
    for (const [one, { since, clocked }] of asked) if (clocked && now - since >= 1000 * LOST) one.abort();
    return Math.max(0, ...[...asked.values()].map(({ since }) => (now - since) / 1000));
  }

  function forget() {
    if (!failed || Date.now() - failed < 1000 * WARNED) return;
    failed = 0;
    say({ failed: { children: "" } });
  }

  function tick(id) {
    if (!asked.size && !held) say({ [id]: { n_intervals: (ticks += 1) } }); // else the answer under way would be discarded
  }

  function miss(before) {
    if (before) return;
    for (const one of asked.keys()) one.abort();
    const since = heard.toTimeString().slice(0, 8);
    const said = `No answer from the app since ${since}: what is shown is of then. It is asked again by itself.`;
    say({ state: { children: said, className: "warning" } });
  }

  // a request of Dash: one that the clock made is let go of where it fails, one that a reader made is made again
  async function ask(url, options) {
    const changed = JSON.parse(options.body).changedPropIds;
    const clocked = changed.length && changed.every((one) => /^(tick|hurry)\./.test(one));
    for (let tries = 1; ; tries += 1) {
      const control = new AbortController();
      asked.set(control, { since: Date.now(), clocked });
      try {
        const answer = await send(url, { ...options, signal: control.signal });
        if (answer.headers.has("X-Failed")) failed = Date.now();
        if (answer.status < 502 || tries === TRIES) return answer; // beyond are a tunnel's
      } catch (error) {
        if (tries === TRIES) throw error;
      } finally {
        asked.delete(control);
      }
      if (clocked) return new Response(null, { status: 204 });
      const back = new Promise((go) => waiting.push(go));
      beat();
      await back;
    }
  }

  window.fetch = (url, options) =>
    String(url).includes("_dash-update-component") ? ask(url, options) : send(url, options);
  for (const [what, event] of [[document, "visibilitychange"], [window, "online"]]) what.addEventListener(event, beat);
  for (const event of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
    window.addEventListener(event, ({ type, buttons, target }) => {
      const begins = type === "pointerdown" && target.closest?.(".js-plotly-plot");
      held = buttons === 1 && Boolean(held || begins);
    }, true);
  }
  setInterval(() => {
    forget();
    if (Date.now() >= due) beat();
    else if (!misses && document.querySelector("#page [aria-busy=true]")) tick("hurry");
  }, 1000 * hurried);
})();
