/** Gives up a node that will never come back: its leases are released at once instead of after the hold. */

import type { Deps } from "../api/context.ts";
import type { Credits } from "../../core/credits.ts";
import { DomainError, notFound } from "../domain/errors.ts";
import { raiseAlarms } from "../store/alarm.ts";
import { type BootLife, isKnownNode, isSilent, leasingBoots, lockBoot } from "../store/boot.ts";
import { heldBy } from "../store/node.ts";
import { takeBack } from "./sweep.ts";

export interface WrittenOff {
  readonly boots: readonly string[];
  readonly leases: number;
  /** The Credits of each VE that are available again. */
  readonly released: ReadonlyMap<string, Credits>;
}

function stillLive(): DomainError {
  return new DomainError("not_available", "the node reported within the last 30 seconds: stop it first", {
    metadata: { rule: "node_live" },
  });
}

/** Its boot is not closed: if it does come back after all, its usage is still posted. */
function writeOffBoot(
  deps: Deps,
  { bootId, nodeId }: BootLife,
  reason: string,
): Promise<{ leases: number; held: ReadonlyMap<string, Credits> }> {
  return deps.db.tx(async (tx) => {
    if ((await lockBoot(tx, bootId)) === null || !(await isSilent(tx, bootId))) throw stillLive();
    const held = await heldBy(tx, bootId);
    const leases = await takeBack(tx, deps, bootId, "all");
    if (leases > 0) {
      await raiseAlarms(tx, deps.now(), [
        { kind: "node_written_off", subject: bootId, detail: { nodeId, leases, ...(reason === "" ? {} : { reason }) } },
      ]);
    }
    return { leases, held };
  });
}

/**
 * Releases the leases of the silent boots of a node, or of one boot. Boots that are live are left alone; an alarm entry
 * remembers each that was written off.
 * @throws DomainError not_found; not_available when all that hold leases are live
 */
export async function writeOffNode(deps: Deps, nodeOrBootId: string, reason = ""): Promise<WrittenOff> {
  if (!(await isKnownNode(deps.db, nodeOrBootId))) throw notFound("node");
  const leasing = await leasingBoots(deps.db, nodeOrBootId);
  const silent = leasing.filter((boot) => !boot.live);
  if (silent.length === 0 && leasing.length > 0) throw stillLive();
  let leases = 0;
  const released = new Map<string, Credits>();
  for (const boot of silent) {
    const off = await writeOffBoot(deps, boot, reason);
    leases += off.leases;
    for (const [veId, credits] of off.held) released.set(veId, (released.get(veId) ?? 0n) + credits);
  }
  return { boots: silent.map(({ bootId }) => bootId), leases, released };
}
