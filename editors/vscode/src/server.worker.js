// The language server in a worker: one message in, a list of messages out.
import bytes from 'midc.wasm';

const waiting = [];
let exports;

self.onmessage = ({ data }) => (exports ? handle(data) : waiting.push(data));

WebAssembly.instantiate(bytes, {}).then(({ instance }) => {
  exports = instance.exports;
  waiting.splice(0).forEach(handle);
});

function handle(message) {
  const text = new TextEncoder().encode(JSON.stringify(message));
  const at = exports.reserve(text.length);
  new Uint8Array(exports.memory.buffer, at, text.length).set(text);
  const length = exports.handle();
  const answer = new Uint8Array(exports.memory.buffer, exports.answer(), length);
  for (const out of JSON.parse(new TextDecoder().decode(answer))) self.postMessage(out);
}
