import assert from "node:assert/strict";
import test from "node:test";
import { eventsIn } from "./sse.js";

test("events come whole however the text was cut", () => {
  const whole = 'event: text\ndata: {"a": 1}\n\n: ping\n\nevent: result\ndata: {"b":\ndata: 2}\n\n';
  const expected = [{ name: "text", data: { a: 1 } }, { name: "result", data: { b: 2 } }];
  for (let cut = 0; cut <= whole.length; cut++) {
    const first = eventsIn(whole.slice(0, cut));
    const second = eventsIn(first.rest + whole.slice(cut));
    assert.deepEqual([...first.events, ...second.events], expected);
    assert.equal(second.rest, "");
  }
});
