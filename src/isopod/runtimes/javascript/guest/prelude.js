// What a Workers-style app finds in its global scope, bundled once when the runtime is prepared. Its
// value is what the host needs.

import "core-js/web/url.js";
import "core-js/web/url-search-params.js";
import "core-js/web/structured-clone.js";
import * as streams from "web-streams-polyfill";
import "urlpattern-polyfill";
import "./encoding.js";
import "./text_streams.js";
import "./compression.js";
import "./events.js";
import "./random.js";
import "./subtle.js";
import "./console.js";
import "./headers.js";
import "./websocket.js";
import "./messages.js";
import "./fetch.js";
import { turn } from "./serve.js";
import { inbox, outbox } from "./wire.js";

for (const name of Object.keys(streams)) {
  Object.defineProperty(globalThis, name, {
    value: streams[name],
    configurable: true,
    writable: true,
  });
}
globalThis.self = globalThis;
globalThis.navigator = Object.freeze({ userAgent: "isopod", hardwareConcurrency: 1 });

globalThis.__isopod = [turn, inbox, outbox];
