/**
 * PURE. What a dialect changes in the bytes of a chat body. Most bodies need nothing: that is found out
 * by one walk over the keys of the messages, which is cheaper than searches for what may stand there.
 */

import type { ScannedBody, Splice } from "../body.ts";
import {
  decodeString,
  JsonScanError,
  type OnMember,
  scanObject,
  skipSpace,
  skipString,
  skipValue,
} from "../json_scan.ts";
import type { Dialect } from "./dialects.ts";
import { dialectMessages, type Edit, hasTopLevelRules, messageKeys, topLevelEdits } from "./dialect_rules.ts";

const ARRAY = 0x5b;
const ARRAY_END = 0x5d;
const OBJECT = 0x7b;
const OBJECT_END = 0x7d;
const COMMA = 0x2c;

interface Member {
  readonly key: string;
  readonly start: number;
  readonly value: number;
  readonly end: number;
}

function needsTopLevel(dialect: Dialect, body: ScannedBody, model: string): boolean {
  if (hasTopLevelRules(dialect, model)) return true;
  const { ranges, bytes } = body;
  if (dialect.oneLimit) {
    const other = dialect.limit === "max_tokens" ? ranges.max_completion_tokens : ranges.max_tokens;
    if (other !== undefined) return true;
  }
  const { tools } = ranges;
  if (dialect.emptyTools || tools === undefined || bytes[tools.start] !== ARRAY) return false;
  return bytes[skipSpace(bytes, tools.start + 1)] === ARRAY_END;
}

/** All top-level members. The body was found sound before, so the long ones need no second look. */
function membersOf(body: ScannedBody): Member[] {
  const members: Member[] = [];
  const { bytes, ranges } = body;
  let pos = skipSpace(bytes, body.inside);
  while (bytes[pos] !== OBJECT_END) {
    const keyEnd = skipString(bytes, pos);
    const value = skipSpace(bytes, skipSpace(bytes, keyEnd) + 1);
    const known =
      value === ranges.messages?.start ? ranges.messages : value === ranges.tools?.start ? ranges.tools : null;
    const end = known === null ? skipValue(bytes, value, 1) : known.end;
    members.push({ key: decodeString(bytes, pos, keyEnd), start: pos, value, end });
    pos = skipSpace(bytes, end);
    if (bytes[pos] === COMMA) pos = skipSpace(bytes, pos + 1);
  }
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
  const goes = (member: Member) => edits.get(member.key)?.kind === "drop";
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

/** Keys of one dialect by length and first byte: most keys are told apart by these without making a string. */
const keysOf = new WeakMap<Dialect, ReadonlyMap<number, readonly string[]>>();
const place = (length: number, first: number) => length * 256 + first;

function wantedKeys(dialect: Dialect): ReadonlyMap<number, readonly string[]> {
  let keys = keysOf.get(dialect);
  if (keys === undefined) {
    keys = Map.groupBy(messageKeys(dialect), (key) => place(key.length, key.charCodeAt(0)));
    keysOf.set(dialect, keys);
  }
  return keys;
}

const ROLE = place(4, 0x72);
const ROLE_KEY = '"role"';
const DEVELOPER = '"developer"';
const CONTENT = '"content"';
const CONTENT_PLACE = place(7, 0x63);

/** Whether a message may need a change. Keys that are written in escapes are not looked for: nobody does that. */
function messagesNeed(dialect: Dialect, bytes: Buffer, at: number): boolean {
  const keys = wantedKeys(dialect);
  const { developerRole } = dialect;
  const hasParts = dialect.messageDrops.length > 0;
  let need = false;
  const wanted = (where: number, member: number, keyEnd: number) => {
    const names = keys.get(where);
    return names !== undefined && names.includes(bytes.toString("latin1", member + 1, keyEnd - 1));
  };
  const onPartMember: OnMember = (member, keyEnd) => {
    if (wanted(place(keyEnd - member - 2, bytes[member + 1]!), member, keyEnd)) need = true;
  };
  const onMember: OnMember = (member, keyEnd, value, end) => {
    const where = place(keyEnd - member - 2, bytes[member + 1]!);
    if (wanted(where, member, keyEnd)) need = true;
    else if (where === ROLE)
      need ||= !developerRole && isText(bytes, member, keyEnd, ROLE_KEY) && isText(bytes, value, end, DEVELOPER);
    else if (where === CONTENT_PLACE && hasParts && bytes[value] === ARRAY && isText(bytes, member, keyEnd, CONTENT))
      eachObject(bytes, value, onPartMember, () => need);
  };
  eachObject(bytes, at, onMember, () => need);
  return need;
}

function isText(bytes: Buffer, start: number, end: number, text: string): boolean {
  return end - start === text.length && bytes.toString("latin1", start, end) === text;
}

/** Walks the members of the objects in the array at `at`, until `enough`. */
function eachObject(bytes: Buffer, at: number, onMember: OnMember, enough: () => boolean): void {
  let pos = skipSpace(bytes, at + 1);
  while (bytes[pos] !== ARRAY_END && !enough()) {
    pos = skipSpace(bytes, bytes[pos] === OBJECT ? scanObject(bytes, pos, 0, onMember) : skipValue(bytes, pos));
    if (bytes[pos] === COMMA) pos = skipSpace(bytes, pos + 1);
  }
}

function hasMessageRules(dialect: Dialect): boolean {
  return !dialect.developerRole || wantedKeys(dialect).size > 0;
}

function messagesSplice(dialect: Dialect, body: ScannedBody): Splice | null {
  const range = body.ranges.messages;
  const { bytes } = body;
  if (range === undefined || bytes[range.start] !== ARRAY || !hasMessageRules(dialect)) return null;
  if (!messagesNeed(dialect, bytes, range.start)) return null;
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
 * What must be spliced into the body of a chat completion for this dialect beyond what `BodyChanges` says; null: nothing. To
 * be given to `changeBody`, since some lie around its own (a limit that goes, and its clamp). Its `includeUsage` must be
 * false where `streamOptions` is.
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
