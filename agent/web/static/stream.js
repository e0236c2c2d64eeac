// The event streams of a browser's tabs, one for each path: a browser keeps at most six connections to a server.
// A tab sends the address of its stream, whose query is the version that it shows, and null while it is hidden. It is sent the
// newest version and the state of the stream: live, silent (no answer), or ended (with the session).
"use strict";
const RETRY_MS = 5000;
const streams = new Map();
const pathByPort = new Map();

function tell(path, state) {
  for (const [port, followed] of pathByPort) if (followed === path) port.postMessage({ state, version: streams.get(path)?.version ?? 0 });
}

function open(path, seen) {
  const source = new EventSource(`${path}?seen=${seen}`);
  const stream = { source, version: seen };
  streams.set(path, stream);
  source.onopen = () => tell(path, "live");
  source.addEventListener("changed", event => {
    stream.version = Number(event.data);
    tell(path, "live");
  });
  source.onerror = async () => {
    if (source.readyState !== EventSource.CLOSED) return tell(path, "silent"); // the browser tries again
    streams.delete(path);
    const answer = await fetch(source.url, { headers: { "HX-Request": "true" } }).catch(() => null);
    answer?.body?.cancel();
    tell(path, answer?.status === 401 ? "ended" : "silent");
    if (answer?.status !== 401) setTimeout(() => { if (isFollowed(path) && !streams.has(path)) open(path, stream.version); }, RETRY_MS);
  };
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
    for (const [unfollowed, { source }] of streams) {
      if (isFollowed(unfollowed)) continue;
      source.close();
      streams.delete(unfollowed);
    }
  };
}

if ("SharedWorkerGlobalScope" in self) self.onconnect = event => serve(event.ports[0]);
else serve(self);
