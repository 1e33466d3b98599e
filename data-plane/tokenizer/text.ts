/** PURE. From samples to strings that can be counted in bounded time. */

/**
 * Byte pair encoding takes a time that grows with the square of the length of a word, and a word may be the whole text
 * (`aaaa…`). So text is counted in parts of this many characters at most, cut between words where there are any.
 */
export const PART_CHARS_MAX = 1024;

/** The text of a sample: one string a line, as it stands in JSON. What is no sound escape stays as it is. */
export function textsOf(sample: Uint8Array): string[] {
  const text = Buffer.from(sample.buffer, sample.byteOffset, sample.length).toString("utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map(unescape);
}

function unescape(line: string): string {
  if (!line.includes("\\")) return line;
  try {
    return JSON.parse(`"${line}"`) as string;
  } catch {
    // The sample ends within an escape, or the upstream's JSON was bad.
    return line.replace(ESCAPES, (escape) => {
      try {
        return JSON.parse(`"${escape}"`) as string;
      } catch {
        return escape;
      }
    });
  }
}

const ESCAPES = /(?:\\u[0-9a-fA-F]{4})+|\\[^u]/g;

/** Cuts before a space that follows a letter or a mark, since words begin with their space; else where it must be. */
export function partsOf(text: string): string[] {
  const parts: string[] = [];
  let from = 0;
  while (text.length - from > PART_CHARS_MAX) {
    const end = cutBefore(text, from, from + PART_CHARS_MAX);
    parts.push(text.slice(from, end));
    from = end;
  }
  parts.push(text.slice(from));
  return parts;
}

function cutBefore(text: string, from: number, end: number): number {
  for (let at = end; at > from + PART_CHARS_MAX / 2; at--) {
    if (text[at] === " " && text[at - 1]! > " " && (text[at + 1] ?? " ") > " ") return at;
  }
  const last = text.charCodeAt(end - 1);
  // Not between the two halves of a character.
  return last >= 0xd800 && last <= 0xdbff ? end - 1 : end;
}
