/** Brings what one node saw of upstreams to the nodes of every replica. Nothing is stored: a lost note does no harm. */

import { HealthCause } from "../../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import type { Deps } from "../api/context.ts";
import { HEALTH_CHANNEL, HINT_BYTES_MAX, notifyHealth } from "../store/health_hint.ts";
import { type BoardNote, HealthBoard, type SeenNote } from "./board.ts";
import { boardGauge, notesTotal } from "./metrics.ts";

/** Subject, milliseconds of its cooldown, cause, failure percent, first content in milliseconds. */
type PackedNote = readonly [string, number, HealthCause, number, number];

interface Hint {
  readonly bootId: string;
  readonly notes: readonly PackedNote[];
}

/** Subjects that changed; true: their cooldown did. */
export type Subjects = ReadonlyMap<string, boolean>;

/** Hints of at most `HINT_BYTES_MAX` each. */
export function packHints(bootId: string, notes: readonly SeenNote[]): string[] {
  const head = `{"bootId":${JSON.stringify(bootId)},"notes":[`;
  const room = HINT_BYTES_MAX - Buffer.byteLength(head) - 2;
  const hints: string[] = [];
  let packed: string[] = [];
  let bytes = 0;
  const finish = (): void => {
    if (packed.length > 0) hints.push(`${head}${packed.join(",")}]}`);
    packed = [];
    bytes = 0;
  };
  for (const { subjectId, coolMs, cause, failurePercent, firstContentMs } of notes) {
    const text = JSON.stringify([subjectId, coolMs, cause, failurePercent, firstContentMs] satisfies PackedNote);
    const length = Buffer.byteLength(text) + 1;
    if (bytes + length > room) finish();
    packed.push(text);
    bytes += length;
  }
  finish();
  return hints;
}

export class HealthExchange {
  readonly board: HealthBoard;
  readonly #deps: Deps;
  readonly #publish: (subjects: Subjects, bootId: string) => void;

  /** `publish` hears of everything that any node saw, on whichever replica, with the boot that saw it. */
  constructor(deps: Deps, publish: (subjects: Subjects, bootId: string) => void) {
    this.#deps = deps;
    this.#publish = publish;
    this.board = new HealthBoard(() => deps.now());
  }

  /** Hears what nodes of all replicas share, until the returned function is called. */
  listen(): Promise<() => Promise<void>> {
    // After a time without a subscription there is nothing to read again: what goes on is told again.
    return this.#deps.db.listen(
      HEALTH_CHANNEL,
      (payload) => this.#hear(payload),
      () => undefined,
    );
  }

  /** What a node saw. @throws when the other replicas could not be told; the nodes of this one have heard all the same */
  async share(bootId: string, notes: readonly SeenNote[]): Promise<void> {
    if (notes.length === 0) return;
    try {
      await notifyHealth(this.#deps.db, packHints(bootId, notes));
    } catch (error) {
      this.#take(bootId, notes);
      throw error;
    }
  }

  /** As notes for a node, without those that it made itself. */
  notesFor(bootId: string, subjects: Subjects): BoardNote[] {
    const notes: BoardNote[] = [];
    for (const [id, cooldown] of subjects) {
      const note = this.board.note(id, cooldown);
      if (note !== null && note.bootId !== bootId) notes.push(note);
    }
    return notes;
  }

  prune(): void {
    this.board.prune();
    boardGauge.set(this.board.size);
  }

  #hear(payload: string): void {
    try {
      const { bootId, notes } = JSON.parse(payload) as Hint;
      this.#take(
        bootId,
        notes.map(([subjectId, coolMs, cause, failurePercent, firstContentMs]) => {
          return { subjectId, coolMs, cause, failurePercent, firstContentMs };
        }),
      );
    } catch {
      this.#deps.log.warn("a health notification is not ours");
    }
  }

  #take(bootId: string, notes: readonly SeenNote[]): void {
    const subjects = new Map<string, boolean>();
    for (const note of notes) {
      this.board.take(note, bootId);
      subjects.set(note.subjectId, subjects.get(note.subjectId) === true || note.cause !== HealthCause.UNSPECIFIED);
    }
    notesTotal.inc(notes.length);
    boardGauge.set(this.board.size);
    this.#publish(subjects, bootId);
  }
}
