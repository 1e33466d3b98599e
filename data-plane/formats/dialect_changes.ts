/** PURE. What a dialect changes in the bytes of a chat body. Most bodies need nothing, and that is found out cheaply. */

import type { ScannedBody, Splice } from "../body.ts";
import { decodeString, JsonScanError, scanObject, skipSpace, skipString } from "../json_scan.ts";
import type { Dialect } from "./dialects.ts";
import { dialectMessages, type Edit, hasTopLevelRules, messageWords, topLevelEdits } from "./dialect_rules.ts";

const ARRAY = 0x5b;
const ARRAY_END = 0x5d;
const COLON = 0x3a;
const TOOLS = Buffer.from('"tools"');

interface Member {
  readonly key: string;
  readonly start: number;
  readonly value: number;
  readonly end: number;
}

/** True if somewhere a member `tools` is an empty array. */
function holdsEmptyTools(bytes: Buffer): boolean {
  for (let at = bytes.indexOf(TOOLS); at !== -1; at = bytes.indexOf(TOOLS, at + TOOLS.length)) {
    const colon = skipSpace(bytes, at + TOOLS.length);
    if (bytes[colon] !== COLON) continue;
    const value = skipSpace(bytes, colon + 1);
    if (bytes[value] === ARRAY && bytes[skipSpace(bytes, value + 1)] === ARRAY_END) return true;
  }
  return false;
}

function needsTopLevel(dialect: Dialect, body: ScannedBody, model: string): boolean {
  if (hasTopLevelRules(dialect, model)) return true;
  const { ranges } = body;
  if (dialect.oneLimit) {
    const other = dialect.limit === "max_tokens" ? ranges.max_completion_tokens : ranges.max_tokens;
    if (other !== undefined) return true;
  }
  return !dialect.emptyTools && holdsEmptyTools(body.bytes);
}

function membersOf(body: ScannedBody): Member[] {
  const members: Member[] = [];
  const { bytes } = body;
  scanObject(bytes, skipSpace(bytes, 0), 0, (start, keyEnd, value, end) => {
    members.push({ key: decodeString(bytes, start, keyEnd), start, value, end });
  });
  return members;
}

/** The last of equal members counts, as for `JSON.parse`; null stands for what cannot be parsed. */
function valueOf(bytes: Buffer, members: readonly Member[], key: string): unknown {
  for (let i = members.length - 1; i >= 0; i--) {
    const { key: name, value, end } = members[i]!;
    if (name !== key) continue;
    try {
      return JSON.parse(bytes.toString("utf8", value, end)) as unknown;
    } catch {
      return null;
    }
  }
  return undefined;
}

/** Members that follow each other and go: with one comma, that of the member before if none follows. */
function cutRun(members: readonly Member[], first: number, last: number): Splice {
  const next = members[last + 1];
  if (next !== undefined) return { start: members[first]!.start, end: next.start, text: "" };
  const before = members[first - 1];
  return { start: before === undefined ? members[first]!.start : before.end, end: members[last]!.end, text: "" };
}

function topLevelSplices(dialect: Dialect, body: ScannedBody, model: string, splices: Splice[]): void {
  const { bytes } = body;
  const members = membersOf(body);
  const edits = topLevelEdits(dialect, model, (key) => valueOf(bytes, members, key));
  if (edits.size === 0) return;
  const cut = ({ start }: Member) => body.cuts.some((each) => each.start === start);
  // What is cut out anyway goes along, since two cuts side by side would share a comma.
  const goes = (member: Member) => edits.get(member.key)?.kind === "drop" || cut(member);
  for (let i = 0; i < members.length; i++) {
    const member = members[i]!;
    if (!goes(member)) {
      const edit = edits.get(member.key);
      if (edit !== undefined) splices.push(editSplice(bytes, member, edit));
      continue;
    }
    const first = i;
    while (i + 1 < members.length && goes(members[i + 1]!)) i++;
    splices.push(cutRun(members, first, i));
  }
}

/** Renaming leaves the value alone: others may splice it. */
function editSplice(bytes: Buffer, { start, end }: Member, edit: Edit): Splice {
  if (edit.kind === "rename") return { start, end: skipString(bytes, start), text: JSON.stringify(edit.name) };
  const text = edit.kind === "replace" ? JSON.stringify(edit.members).slice(1, -1) : "";
  return { start, end, text };
}

function messagesSplice(dialect: Dialect, body: ScannedBody): Splice | null {
  const range = body.ranges.messages;
  const { bytes } = body;
  if (range === undefined || bytes[range.start] !== ARRAY) return null;
  if (!messageWords(dialect).some((word) => bytes.includes(word, range.start, "latin1"))) return null;
  let messages: unknown;
  try {
    messages = JSON.parse(bytes.toString("utf8", range.start, range.end));
  } catch {
    // A string has a bad escape: the upstream says so.
    return null;
  }
  const list = dialectMessages(dialect, messages as unknown[]);
  return list === messages ? null : { start: range.start, end: range.end, text: JSON.stringify(list) };
}

/**
 * What must be spliced into a chat body for this dialect beyond what `BodyChanges` says; null: nothing. Some may lie around
 * splices of others (a limit that goes, and its clamp): give both to `outermost` of `body.ts`.
 * @param model its family, or else its upstream name
 */
export function dialectChanges(dialect: Dialect, body: ScannedBody, model: string): readonly Splice[] | null {
  const splices: Splice[] = [];
  try {
    if (needsTopLevel(dialect, body, model)) topLevelSplices(dialect, body, model, splices);
  } catch (error) {
    // A key has a bad escape: the upstream says so.
    if (!(error instanceof JsonScanError)) throw error;
  }
  const messages = messagesSplice(dialect, body);
  if (messages !== null) splices.push(messages);
  return splices.length === 0 ? null : splices;
}
