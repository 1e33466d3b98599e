/**
 * The job that buys Credits before a wallet is empty, with a payment method that a payer saved. What is bought goes the way
 * of every payment: a Checkout Session, fulfilled once.
 *
 * A charge is claimed in a transaction of its own, and the row says so until it is known what became of it: from the answer,
 * or, if the process that asked is gone, from the newest automatic session. So there is never a second charge beside one
 * that may have been made, and the daily maximum counts all of them.
 */

import { parseCredits } from "../core/credits.ts";
import { Period, periodOf } from "../core/periods.ts";
import type { Deps } from "./api/context.ts";
import type { Tx } from "./db/database.ts";
import {
  afterFailure,
  type AutoTopUpStep,
  CHARGE_LOST_MS,
  DAILY_MAX_REACHED,
  LOOK_AGAIN_MS,
  nextStep,
} from "./domain/auto_top_up.ts";
import { PaymentMethod, PaymentProcessor } from "./domain/checkout.ts";
import { formatAmount } from "./domain/money.ts";
import type { Details } from "./payments/payment.ts";
import type { AutomaticCharge, ChargeResult } from "./checkout/automatic.ts";
import type { Choice } from "./checkout/deps.ts";
import { openSavedMethod } from "./saved_methods.ts";
import { SecretsError } from "./secrets.ts";
import {
  type AutoTopUpRow,
  disableAutoTopUp,
  type DueAutoTopUp,
  lockAutoTopUp,
  lockDueAutoTopUps,
  newestAutomaticSession,
  readAutomaticSpend,
  readDueAutoTopUps,
  writeAutoTopUpState,
} from "./store/auto_top_up.ts";
import { findPaymentAccount } from "./store/payment_account.ts";
import { emitWebhookEvents, type WebhookEventType } from "./store/webhook_event.ts";

/** Automatic top-ups that one run looks at, and of one merchant; the rest follows with the next run. */
export const RUN_ROWS_MAX = 64;
export const RUN_ROWS_OF_MERCHANT_MAX = 8;

/** Makes an automatic session and charges the saved method: the engine's `chargeAutomatically`, with its deps. */
export type ChargeAutomatically = (charge: AutomaticCharge) => Promise<ChargeResult>;

type JobDeps = Pick<Deps, "db" | "now" | "newId" | "secrets" | "log">;

async function tell(
  deps: JobDeps,
  tx: Tx,
  row: AutoTopUpRow,
  sessionId: string,
  events: readonly [WebhookEventType, Readonly<Record<string, unknown>>][],
): Promise<void> {
  const { ve_id: veId, merchant_id: merchantId } = row;
  const common = {
    ve_id: veId,
    credit_pack_id: row.pack_id,
    checkout_session_id: sessionId,
    daily_max: { currency: row.currency, amount: formatAmount({ currency: row.currency, minor: row.daily_minor }) },
  };
  await emitWebhookEvents(
    tx,
    deps.now(),
    events.map(([type, data]) => ({
      id: deps.newId("evt_"),
      merchantId,
      type,
      veId,
      sessionId,
      data: { ...common, ...data },
    })),
  );
}

/** Counts a failure of a locked row, and switches it off after too many. */
async function failed(
  deps: JobDeps,
  tx: Tx,
  row: AutoTopUpRow,
  sessionId: string | null,
  failure: string,
): Promise<void> {
  const nowMs = deps.now();
  const { failures, enabled, tryAtMs } = afterFailure(row.failures, failure, nowMs);
  const tryAt = new Date(tryAtMs);
  const state = { charging: false, lastSessionId: sessionId, failures, lastFailure: failure, tryAt };
  await writeAutoTopUpState(tx, row.ve_id, state);
  const next = enabled ? tryAt.toISOString() : null;
  const told: [WebhookEventType, Record<string, unknown>][] = [
    ["auto_top_up.failed", { failure, failures, next_attempt_time: next }],
  ];
  if (!enabled) {
    await disableAutoTopUp(tx, row.ve_id, new Date(nowMs));
    told.push(["auto_top_up.disabled", { failure, failures }]);
  }
  // It may have failed before there was a session.
  await tell(deps, tx, row, sessionId === row.last_session_id ? "" : (sessionId ?? ""), told);
  deps.log.warn({ ve_id: row.ve_id, failure, failures, enabled }, "an automatic top-up failed");
}

async function wentWell(deps: JobDeps, tx: Tx, row: AutoTopUpRow, sessionId: string | null): Promise<void> {
  const state = {
    charging: false,
    lastSessionId: sessionId,
    failures: 0,
    lastFailure: "",
    tryAt: new Date(deps.now()),
  };
  await writeAutoTopUpState(tx, row.ve_id, state);
}

interface Claim {
  readonly row: DueAutoTopUp;
  /** When it is lost. The row has the same time as long as the claim stands. */
  readonly untilMs: number;
}

/** Carries a step out on a locked row; the claim if it is to be charged. */
async function take(deps: JobDeps, tx: Tx, row: DueAutoTopUp, step: AutoTopUpStep): Promise<Claim | null> {
  const nowMs = deps.now();
  const { charging, failures } = row;
  const same = { charging, lastSessionId: row.last_session_id, failures, lastFailure: row.last_failure };
  switch (step.kind) {
    case "look":
      await writeAutoTopUpState(tx, row.ve_id, { ...same, tryAt: new Date(nowMs + LOOK_AGAIN_MS) });
      return null;
    case "failed":
      await failed(deps, tx, row, row.session_id, step.failure);
      return null;
    case "went_well":
      await wentWell(deps, tx, row, row.session_id);
      return null;
    case "rest":
      if (charging) await writeAutoTopUpState(tx, row.ve_id, { ...same, charging: false, tryAt: row.try_at });
      return null;
    case "capped": {
      const tryAt = new Date(step.untilMs);
      const state = { charging: false, lastSessionId: row.session_id, failures, lastFailure: DAILY_MAX_REACHED, tryAt };
      await writeAutoTopUpState(tx, row.ve_id, state);
      const data = { failure: DAILY_MAX_REACHED, failures, next_attempt_time: tryAt.toISOString() };
      await tell(deps, tx, row, "", [["auto_top_up.failed", data]]);
      return null;
    }
    case "charge": {
      const untilMs = nowMs + CHARGE_LOST_MS;
      const state = { ...same, charging: true, lastSessionId: row.session_id, tryAt: new Date(untilMs) };
      await writeAutoTopUpState(tx, row.ve_id, state);
      return { row, untilMs };
    }
  }
}

function stepOf(row: DueAutoTopUp, spentMinor: bigint, dayEndMs: number): AutoTopUpStep {
  return nextStep({
    charging: row.charging,
    lastSessionId: row.last_session_id,
    savedAtMs: row.saved_at.getTime(),
    open: row.open,
    remaining: parseCredits(row.remaining),
    threshold: parseCredits(row.threshold),
    price: row.pack_custom ? null : { currency: row.pack_currency, minor: row.pack_minor },
    dailyMax: { currency: row.currency, minor: row.daily_minor },
    spentMinor,
    dayEndMs,
    newest:
      row.session_id === null
        ? null
        : {
            id: row.session_id,
            state: row.session_state,
            failure: row.session_failure,
            unsettled: row.session_unsettled,
            createdAtMs: row.session_created_at.getTime(),
          },
  });
}

/** Looks at what is due, and claims what is to be charged. */
async function claimSome(deps: JobDeps, tx: Tx): Promise<Claim[]> {
  const nowMs = deps.now();
  const limits = { rows: RUN_ROWS_MAX, rowsOfMerchant: RUN_ROWS_OF_MERCHANT_MAX };
  const veIds = await lockDueAutoTopUps(tx, new Date(nowMs), limits);
  if (veIds.length === 0) return [];
  const due = (await readDueAutoTopUps(tx, veIds)).map((row) => ({
    row,
    day: periodOf(Period.DAILY, row.time_zone, nowMs),
  }));
  // Without an end: what a clock that is ahead dated to tomorrow counts too, and one that was put back opens no day anew.
  const spent = await readAutomaticSpend(
    tx,
    due.map(({ row, day }) => ({ veId: row.ve_id, currency: row.currency, sinceMs: day.startMs })),
  );
  const claims: Claim[] = [];
  for (const { row, day } of due) {
    const claim = await take(deps, tx, row, stepOf(row, spent.get(row.ve_id) ?? 0n, day.endMs));
    if (claim !== null) claims.push(claim);
  }
  return claims;
}

async function chargeOf(deps: JobDeps, row: DueAutoTopUp): Promise<AutomaticCharge | { readonly failure: string }> {
  const account = await findPaymentAccount(deps.db, row.account_id);
  // The row refers to it.
  if (account === null) throw new Error(`there is no payment account ${row.account_id}`);
  let saved: Details;
  try {
    saved = openSavedMethod(deps, row);
  } catch (error) {
    if (!(error instanceof SecretsError)) throw error;
    return { failure: "saved_method_unreadable" };
  }
  const isStripe = account.processor === PaymentProcessor.STRIPE;
  const choice: Choice = {
    packId: row.pack_id,
    label: row.pack_label,
    currency: row.pack_currency,
    amountMinor: row.pack_minor,
    credits: parseCredits(row.pack_credits),
    bonus: parseCredits(row.pack_bonus),
    account,
    method: isStripe ? PaymentMethod.STRIPE_SAVED : PaymentMethod.SANDBOX,
    wechatCode: "",
    autoTopUp: false,
    language: "en",
    clientAddress: "",
    merchantName: row.merchant_name,
  };
  return { veId: row.ve_id, merchantId: row.merchant_id, choice, saved };
}

/** Writes down how a charge ended. If the claim was lost meanwhile, the session tells a later run. */
async function settle(deps: JobDeps, { row, untilMs }: Claim, result: ChargeResult): Promise<void> {
  await deps.db.tx(async (tx) => {
    const present = await lockAutoTopUp(tx, row.ve_id);
    if (present === null || !present.charging || present.try_at.getTime() !== untilMs) return;
    if (result === "pending") {
      const { charging, last_session_id: lastSessionId, failures, last_failure: lastFailure } = present;
      const tryAt = new Date(deps.now() + LOOK_AGAIN_MS);
      return writeAutoTopUpState(tx, row.ve_id, { charging, lastSessionId, failures, lastFailure, tryAt });
    }
    const sessionId = await newestAutomaticSession(tx, row.ve_id);
    // What an earlier payment method came to says nothing of the one that was saved meanwhile.
    const isReplaced = present.saved_at.getTime() !== row.saved_at.getTime();
    if (result === "fulfilled" || isReplaced) return wentWell(deps, tx, present, sessionId);
    return failed(deps, tx, present, sessionId, result.failure);
  });
}

async function chargeOne(deps: JobDeps, charge: ChargeAutomatically, claim: Claim): Promise<void> {
  const { ve_id: veId } = claim.row;
  try {
    const order = await chargeOf(deps, claim.row);
    if (deps.now() > claim.untilMs - CHARGE_LOST_MS / 2) throw new Error("the claim is too old to be charged");
    await settle(deps, claim, "failure" in order ? order : await charge(order));
  } catch (error) {
    // The claim stands: when its time is over, the newest session says whether there was a charge.
    deps.log.error({ ve_id: veId, reason: (error as Error).message }, "an automatic top-up was not finished");
  }
}

/**
 * Buys for the VEs that have little left; how many charges were begun. Safe on several replicas at once. What fails is
 * tried again by a later run.
 */
export async function topUpAutomatically(deps: JobDeps, charge: ChargeAutomatically): Promise<number> {
  const claims = await deps.db.tx((tx) => claimSome(deps, tx));
  await Promise.all(claims.map((claim) => chargeOne(deps, charge, claim)));
  return claims.length;
}
