/** PURE. Finds the end of a JSON object that comes in pieces, without keeping it. */

export class JsonEnd {
  /** An object was opened and closed again: what is sound JSON has nothing after it. */
  whole = false;
  private depth = 0;
  private inString = false;
  private escaped = false;

  push(text: string): void {
    for (let at = 0; at < text.length && !this.whole; at++) {
      const char = text[at]!;
      if (this.inString) {
        if (this.escaped) this.escaped = false;
        else if (char === "\\") this.escaped = true;
        else if (char === '"') this.inString = false;
      } else if (char === '"') this.inString = true;
      else if (char === "{" || char === "[") this.depth++;
      else if ((char === "}" || char === "]") && --this.depth === 0) this.whole = true;
    }
  }
}
