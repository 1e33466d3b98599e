/** What a client says: forwarded as it came, but for what begins a turn, concerns the model, or is for the gateway. */

import type { ErrorFields } from "../errors.ts";
import { Outcome } from "../outcome.ts";
import * as events from "./events.ts";
import * as said from "./farewell.ts";
import type { Lane } from "./lane.ts";
import { TURNS_MAX } from "./limits.ts";
import { Magic } from "./magic.ts";
import { observeClient } from "./observe.ts";
import type { Party, Turn } from "./turn.ts";
import type { Turns } from "./turns.ts";

/** Whose client it is. */
export interface ClientHost {
  readonly party: Party;
  readonly turns: Turns;
  /** To the upstream. */
  readonly up: Lane;
  /** Not null: no turn begins any more. */
  readonly retiring: said.Farewell | null;
  /** False: the session ends meanwhile, and has dealt with the turn. */
  granted(turn: Turn): boolean;
  deliver(event: Buffer, binary: boolean): void;
  tell(fields: ErrorFields, to: string): void;
  leave(farewell: said.Farewell, outcome: Outcome): void;
}

export class ClientEvents {
  private readonly host: ClientHost;
  private readonly magic: Magic;

  constructor(host: ClientHost) {
    this.host = host;
    this.magic = new Magic(host.party, (event) => host.deliver(event, false));
  }

  take(data: Buffer, binary: boolean): void {
    const { host } = this;
    const head = events.readHead(data);
    if (head === null) return host.up.forward(data, binary);
    if (head.ambiguous) return host.tell(said.AMBIGUOUS, head.eventId);
    if (this.magic.takes(head, data)) return;
    switch (head.type) {
      case "response.create":
        return this.create(data, binary, head);
      case "session.update":
        return this.update(data, binary, head);
      default:
        observeClient(host.turns.conversation, head, data);
    }
    host.up.forward(data, binary);
  }

  /** A turn: nothing of the client goes on before its cover is known. */
  private create(data: Buffer, binary: boolean, { eventId }: events.EventHead): void {
    const { host } = this;
    const { up, turns } = host;
    if (host.retiring !== null) return host.tell(host.retiring.fields!, eventId);
    const invalid = said.invalid(host.party);
    if (invalid !== null) return host.leave(invalid, Outcome.CLIENT_GONE);
    if (turns.open.length >= TURNS_MAX) return host.tell(said.TOO_MANY, eventId);
    const asked = events.outputLimitOf(events.fieldsOf(events.parseEvent(data)["response"]));
    up.close();
    turns.begin({ eventId, asked, limitable: true, media: events.mediaOf(data) }, (turn, refusal, limit) => {
      if (turn === null) host.tell(refusal!.fields, eventId);
      else if (host.granted(turn)) up.forward(limit === 0 ? data : events.limitOutput(data, limit), binary);
      up.open();
    });
  }

  /** Its own name of the model is the client's to repeat; another one would be another price. */
  private update(data: Buffer, binary: boolean, { eventId }: events.EventHead): void {
    const { host } = this;
    const { model, pm } = host.party;
    const update = events.withModel(data, model, pm.upstreamName);
    if (update === null) host.tell(said.OTHER_MODEL, eventId);
    else host.up.forward(update, binary);
  }
}
