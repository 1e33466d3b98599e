/** Limits of Physical Models: wire <-> domain. */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { formatCredits, parseCredits, PICO_PER_CREDIT } from "../../core/credits.ts";
import type { UnitKind } from "../../core/meters.ts";
import type { Period } from "../../core/periods.ts";
import {
  type CreditLimit,
  CreditLimitSchema,
  type PhysicalModelLimitState,
  PhysicalModelLimitStateSchema,
  type UnitLimit,
  UnitLimitSchema,
} from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { Tx } from "../db/database.ts";
import { invalidField } from "../domain/errors.ts";
import {
  asWallet,
  changeLimit,
  isExhausted,
  type LimitAccount,
  LimitKind,
  type LimitOwner,
  type LimitTerms,
  newLimit,
  rollOver,
} from "../domain/limits.ts";
import { notifyWallets, type WalletHint } from "../store/feed_state.ts";
import { deleteLeasesOfLimit, deleteLimit, lockLimits, writeLimits } from "../store/limit.ts";

/** Units are held with 12 decimals, as Credits are. */
const PICO_PER_UNIT = PICO_PER_CREDIT;

export interface LimitsInRequest {
  readonly unitLimit?: UnitLimit;
  readonly creditLimit?: CreditLimit;
  readonly removeUnitLimit?: boolean;
  readonly removeCreditLimit?: boolean;
}

export interface LimitChanges {
  readonly set: readonly LimitTerms[];
  readonly remove: readonly LimitKind[];
}

/** What a request says about limits. @throws DomainError invalid_field */
export function limitChanges(request: LimitsInRequest): LimitChanges {
  const { unitLimit, creditLimit, removeUnitLimit = false, removeCreditLimit = false } = request;
  const set: LimitTerms[] = [];
  const remove: LimitKind[] = [];
  const exclusive = (field: string) => invalidField(field, "set a limit or remove it, not both", "exclusive");
  if (unitLimit !== undefined) {
    if (removeUnitLimit) throw exclusive("remove_unit_limit");
    const { unit, quantity, resetPeriod } = unitLimit;
    const amount = quantity * PICO_PER_UNIT;
    set.push({ kind: LimitKind.UNITS, unit: unit as UnitKind, period: resetPeriod as Period | 0, amount });
  } else if (removeUnitLimit) remove.push(LimitKind.UNITS);
  if (creditLimit !== undefined) {
    if (removeCreditLimit) throw exclusive("remove_credit_limit");
    const amount = parseCredits(creditLimit.credits);
    if (amount === 0n) throw invalidField("credit_limit.credits", "give an amount above 0", "not_zero");
    set.push({ kind: LimitKind.CREDITS, unit: 0, period: creditLimit.resetPeriod as Period | 0, amount });
  } else if (removeCreditLimit) remove.push(LimitKind.CREDITS);
  return { set, remove };
}

export function isChange({ set, remove }: LimitChanges): boolean {
  return set.length > 0 || remove.length > 0;
}

/** Sets and removes limits of a locked Physical Model, and tells the nodes to ask again. */
export async function writeLimitChanges(
  tx: Tx,
  owner: LimitOwner,
  { set, remove }: LimitChanges,
  nowMs: number,
): Promise<void> {
  const { physicalModelId } = owner;
  const present = new Map((await lockLimits(tx, [physicalModelId])).map((account) => [account.kind, account]));
  const hints: WalletHint[] = [];
  for (const terms of set) {
    const before = present.get(terms.kind);
    const after = before === undefined ? newLimit(owner, terms, nowMs) : changeLimit(before, terms, nowMs);
    if (before !== undefined && before.leased > 0n && after.leased === 0n)
      await deleteLeasesOfLimit(tx, physicalModelId, terms.kind);
    await writeLimits(tx, [after]);
    // A limit below what nodes hold takes effect at once, not when they have used that up.
    const kind = asWallet(after).debt > 0n ? "recall" : "topped_up";
    hints.push({ veId: "", limit: { physicalModelId, kind: terms.kind }, kind });
  }
  for (const kind of remove) await deleteLimit(tx, physicalModelId, kind);
  await notifyWallets(tx, hints);
}

function toState(account: LimitAccount): PhysicalModelLimitState {
  const left = account.amount - account.used;
  return create(PhysicalModelLimitStateSchema, {
    kind: account.kind,
    unit: account.unit,
    limit: formatCredits(account.amount),
    used: formatCredits(account.used),
    remaining: formatCredits(left > 0n ? left : 0n),
    periodStartTime: timestampFromMs(account.countsFromMs),
    periodEndTime: account.endsMs === null ? undefined : timestampFromMs(account.endsMs),
    exhausted: isExhausted(account),
  });
}

export interface LimitFields {
  readonly unitLimit?: UnitLimit;
  readonly creditLimit?: CreditLimit;
  readonly limitStates: PhysicalModelLimitState[];
}

/** The limits of one Physical Model as of now. */
export function toLimitFields(accounts: readonly LimitAccount[], nowMs: number): LimitFields {
  const units = accounts.find(({ kind }) => kind === LimitKind.UNITS);
  const credits = accounts.find(({ kind }) => kind === LimitKind.CREDITS);
  return {
    ...(units && {
      unitLimit: create(UnitLimitSchema, {
        unit: units.unit,
        quantity: units.amount / PICO_PER_UNIT,
        resetPeriod: units.period,
      }),
    }),
    ...(credits && {
      creditLimit: create(CreditLimitSchema, { credits: formatCredits(credits.amount), resetPeriod: credits.period }),
    }),
    limitStates: accounts.map((account) => toState(rollOver(account, nowMs))),
  };
}
