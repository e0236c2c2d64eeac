// The event streams of a browser's tabs, one for each path: a browser keeps at most six connections to a server.
// A tab sends the address of its stream, whose query is the version that it shows, and null while it is hidden. It is sent the
// newest version and the state of the stream: live, silent (no answer), full (no stream for this page), or ended (with the session, and the reason).
"use strict";
const RETRY_MS = 5000;
const SILENCE_MS = 40000; // the server says every 15 s that it is alive
const streams = new Map();
const pathByPort = new Map();

function tell(path, state, reason) {
  for (const [port, followed] of pathByPort) if (followed === path) port.postMessage({ state, reason, version: streams.get(path)?.version ?? 0 });
}

function open(path, seen) {
  const source = new EventSource(`${path}?seen=${seen}`);
  const stream = { source, version: seen };
  streams.set(path, stream);
  const wait = () => {
    clearTimeout(stream.timer);
    stream.timer = setTimeout(() => { tell(path, "silent"); source.close(); source.onerror(); }, SILENCE_MS);
  };
  const hear = () => { wait(); tell(path, "live"); };
  source.onopen = hear;
  source.addEventListener("alive", hear);
  source.addEventListener("changed", event => {
    stream.version = Number(event.data);
    hear();
  });
  source.onerror = async () => {
    if (source.readyState !== EventSource.CLOSED) return tell(path, "silent"); // the browser tries again
    clearTimeout(stream.timer);
    if (streams.get(path) === stream) streams.delete(path);
    const answer = await fetch(source.url, { headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(RETRY_MS) }).catch(() => null);
    const isEnded = answer?.status === 401;
    const reason = isEnded ? (await answer.text()).replace("401: ", "") : "";
    if (!isEnded) answer?.body?.cancel();
    tell(path, { 401: "ended", 429: "full", 503: "full" }[answer?.status] ?? "silent", reason);
    if (!isEnded) setTimeout(() => { if (isFollowed(path) && !streams.has(path)) open(path, stream.version); }, RETRY_MS);
  };
  wait();
}

const isFollowed = path => [...pathByPort.values()].includes(path);

function serve(port) {
  port.onmessage = ({ data: address }) => {
    pathByPort.delete(port);
    if (address) {
      const [path, seen] = address.split("?seen=");
      pathByPort.set(port, path);
      if (!streams.has(path)) open(path, Number(seen));
      else if (streams.get(path).source.readyState === EventSource.OPEN) port.postMessage({ state: "live", version: streams.get(path).version });
    }
    for (const [unfollowed, { source, timer }] of streams) {
      if (isFollowed(unfollowed)) continue;
      clearTimeout(timer);
      source.close();
      streams.delete(unfollowed);
    }
  };
}

if ("SharedWorkerGlobalScope" in self) self.onconnect = event => serve(event.ports[0]);
else serve(self);
