// Templates as HTML is written; what is put into them becomes text or attributes, never markup.

import { h } from "preact";
import htm from "htm";

export const html = htm.bind(h);
