// The console's only script: when the server says that something changed, it fetches the same page and brings the
// document up to date node by node, so that focus, selection and scroll positions stay. The page is never reloaded.
"use strict";
(() => {
  const skew = Number(document.body.dataset.now) - Date.now();
  const badge = document.getElementById("live");

  const span = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000)), two = (n) => String(n).padStart(2, "0");
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} m ${two(s % 60)} s`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)} m`;
    return `${Math.floor(s / 86400)} d ${two(Math.floor(s / 3600) % 24)} h`;
  };
  const tick = () => {
    const now = Date.now() + skew;
    for (const time of document.querySelectorAll("time[data-since]")) {
      const text = span(now - Number(time.dataset.since));
      if (time.textContent !== text) time.textContent = text;
    }
  };

  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
  const follow = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    const theirs = [...fresh.childNodes];
    let at = old.firstChild;
    for (const child of theirs) {
      // A row that went away is skipped, not rewritten into its neighbour.
      if (at && child.id && !same(at, child)) {
        let later = at;
        while (later && !same(later, child)) later = later.nextSibling;
        if (later) while (at !== later) { const gone = at; at = at.nextSibling; gone.remove(); }
      }
      if (at && same(at, child)) {
        follow(at, child);
        at = at.nextSibling;
      } else {
        old.insertBefore(document.importNode(child, true), at);
      }
    }
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  };

  let busy = false, again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "follow" });
      if (new URL(answer.url).pathname === "/login") { location.assign("/login"); return; }
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
        if (fresh) follow(document.getElementById("main"), fresh);
        tick();
      }
    } catch { /* the stream's own reconnection asks again */ } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  };

  const show = (state, text) => { badge.dataset.state = state; badge.textContent = text; };
  const stream = new EventSource("/live");
  stream.addEventListener("open", () => { show("on", "live"); refresh(); });
  stream.addEventListener("changed", refresh);
  stream.addEventListener("error", () => {
    show("off", "reconnecting");
    // A stream that the server ended for good (session over) is closed by the browser: look once where we stand.
    if (stream.readyState === EventSource.CLOSED) { show("off", "not live"); refresh(); }
  });
  setInterval(tick, 1000);
  tick();
})();
