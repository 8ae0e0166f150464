import assert from "node:assert/strict";
import { test } from "node:test";
import { parts, pieces, section } from "./card.js";

const CARD = `---
tags: ["sparse-autoencoder"]
---

# a\\_name

Reads \`blocks.3.hook\` of it,
on two lines.

## What it is

| | |
|---|---|
| model | org/m |
| text \\| more | 1 |

- one
- two

## How to load it

### SAELens

\`\`\`python
# no heading
x = "|"
\`\`\`

## Licence

None.
`;

test("a card comes in its parts", () => {
  const all = parts(CARD);
  assert.deepEqual(all.map(({ kind }) => kind), ["front", "heading", "paragraph", "heading", "table", "list", "heading", "heading", "code", "heading", "paragraph"]);
  assert.equal(all[2].text, "Reads `blocks.3.hook` of it, on two lines.");
  assert.deepEqual(all[4].rows, [["model", "org/m"], ["text \\| more", "1"]]);
  assert.deepEqual(all[5].items, ["one", "two"]);
  assert.equal(all[8].text, '# no heading\nx = "|"');
});

test("a section is what stands below its heading", () => {
  assert.deepEqual(section(parts(CARD), "How to load it").map(({ kind }) => kind), ["heading", "code"]);
  assert.deepEqual(section(parts(CARD), "Nothing"), []);
  assert.equal(section(parts(CARD)).length, 11);
});

test("code in a line is code, and backslashes before signs are gone", () => {
  assert.deepEqual(pieces("Reads `a_b` of x\\_y\\<b\\>"), [{ code: false, text: "Reads " }, { code: true, text: "a_b" }, { code: false, text: " of x_y<b>" }]);
  assert.deepEqual(pieces("<img onerror=1>"), [{ code: false, text: "<img onerror=1>" }]);
});

test("what ends too early is a card all the same", () => {
  assert.deepEqual(parts("```\nx").map(({ text }) => text), ["x"]);
  assert.deepEqual(parts(""), []);
});
