// Server-sent events out of a text that comes in pieces (WHATWG HTML, "Server-sent events"). Pure.

/** The events that are whole, `{name, data}` with data as JSON, and the rest of the text, which belongs to the next. */
export function eventsIn(text) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  const events = [];
  for (const block of blocks) {
    let [name, data] = ["message", []];
    for (const line of block.split("\n")) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    }
    if (data.length) events.push({ name, data: JSON.parse(data.join("\n")) });
  }
  return { events, rest };
}
