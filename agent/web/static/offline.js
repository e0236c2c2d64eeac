// Shows alerts by web push. Without a connection, a page that says how old the figures seen last are. Their times, which dashboard.js notes, are all that
// is kept here, until the logout.
"use strict";
self.addEventListener("fetch", event => {
  const { method, mode } = event.request;
  if (mode === "navigate" && method === "GET") event.respondWith(fetch(event.request).catch(() => offlinePage(event.request.url)));
});

self.addEventListener("push", event => {
  const { title, text, page } = event.data.json();
  event.waitUntil(self.registration.showNotification(title, { body: text, icon: "/static/icon.png", data: page }));
});

// Opens the page of the alert, and never another site.
self.addEventListener("notificationclick", event => {
  event.notification.close();
  const { origin } = self.location;
  const url = new URL(event.notification.data, origin);
  event.waitUntil(self.clients.openWindow(url.origin === origin ? url.href : origin));
});

function age(milliseconds) {
  const minutes = Math.max(0, Math.floor(milliseconds / 60000));
  if (minutes < 60) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} days`;
}

async function offlinePage(url) {
  const prefix = new URL(url).pathname.match(/^\/p\/[^/]+\//)?.[0] ?? "";
  const cache = await caches.open("figures");
  const lines = [];
  for (const request of await cache.keys()) {
    const folder = new URL(request.url).pathname.replace(/figures$/, "");
    const time = new Date(await (await cache.match(request)).text());
    if (!folder.startsWith(prefix) || isNaN(time)) continue; // the list of portfolios shows all
    const utc = time.toISOString().slice(0, 19).replace("T", " ");
    lines.push(`<p>${folder.slice(3, -1) || "Portfolio"}: the figures seen last on this device are of <strong>${utc} UTC, ${age(Date.now() - time)} ago</strong>.</p>`);
  }
  const page = `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>No connection</title><style>
body { max-width: 34rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
a { display: inline-block; padding: .7rem 0; }
</style></head><body><main><h1>No connection to the dashboard</h1>
${lines.join("") || "<p>No figures were seen on this device since the last login.</p>"}
<p>No figure is kept on this device. An agent of trimtab run or trimtab paper does not depend on the dashboard; a paper run that trimtab serve --setup began ends with that server, and starts again with it.</p>
<p><a href="">Try again</a></p></main></body></html>`;
  const policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
  return new Response(page, { headers: { "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy } });
}
