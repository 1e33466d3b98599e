/** Reads the session again and again, and asks the processor about it while a payment waits. */

import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";
import { createConnectQueryKey, useQuery } from "@connectrpc/connect-query";
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo, useRef } from "react";
import {
  type CheckoutOffer,
  type CheckoutSession,
  CheckoutState,
} from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import {
  CheckoutService,
  type GetCheckoutSessionResponse,
} from "../../../ts/src/gen/tokenbill/v1/checkout_service_pb.ts";
import { makeTransport } from "../shared/calls.ts";
import { CHECK_MS, mayBePaid, pollAfterMs } from "./view.ts";

const { getCheckoutSession, checkPayment } = CheckoutService.method;

export interface Reading {
  /** For other calls with the session's secret. */
  readonly transport: Transport;
  readonly session: CheckoutSession | undefined;
  readonly offer: CheckoutOffer | undefined;
  /** Why the session cannot be read. */
  readonly error: Error | null;
  /** Why calls fail that are tried again. */
  readonly failures: readonly (Error | null)[];
  readonly checking: boolean;
  /** How the session stood when the processor was asked last. */
  readonly checkedState: CheckoutState | undefined;
  readonly reread: () => void;
  readonly check: () => void;
  /** Takes over a session that another call has answered. */
  readonly apply: (session: CheckoutSession | undefined) => void;
}

function pollAfter(answer: GetCheckoutSessionResponse | undefined, sinceMs: number): number | false {
  const session = answer?.checkoutSession;
  if (session === undefined) return false;
  const expireMs = session.expireTime === undefined ? 0 : timestampMs(session.expireTime);
  // The server's clock counts, not the payer's.
  const serverMs = answer?.offer?.time === undefined ? Date.now() : timestampMs(answer.offer.time);
  return pollAfterMs(session.state, sinceMs, expireMs - serverMs);
}

export function useReading(id: string, secret: string): Reading {
  const transport = useMemo(() => makeTransport(secret), [secret]);
  const client = useQueryClient();
  const waitingSince = useRef<number | null>(null);
  const read = useQuery(
    getCheckoutSession,
    { id },
    {
      transport,
      refetchInterval: ({ state: { data, error } }) => {
        if (error !== null) return data === undefined ? false : CHECK_MS;
        if (data?.checkoutSession?.state === CheckoutState.PENDING) waitingSince.current ??= Date.now();
        else waitingSince.current = null;
        return pollAfter(data, Date.now() - (waitingSince.current ?? Date.now()));
      },
    },
  );
  const session = read.data?.checkoutSession;
  const state = session?.state;
  const goesOn = state === CheckoutState.PENDING || state === CheckoutState.PAID;
  const check = useQuery(
    checkPayment,
    { id },
    {
      transport,
      enabled: session !== undefined && mayBePaid(session),
      staleTime: CHECK_MS,
      refetchInterval: goesOn ? CHECK_MS : false,
    },
  );
  // The answer may be older than what was read: it is only a reason to read again.
  const checkedState = check.data?.checkoutSession?.state;
  const { refetch } = read;
  useEffect(() => {
    if (checkedState !== undefined && state !== undefined && checkedState !== state) void refetch();
  }, [checkedState, state, refetch]);
  const apply = (changed: CheckoutSession | undefined): void => {
    if (changed === undefined) return;
    const common = { input: { id }, transport, cardinality: "finite" } as const;
    client.setQueryData(
      createConnectQueryKey({ schema: getCheckoutSession, ...common }),
      (old) => old && { ...old, checkoutSession: changed },
    );
    // It was asked about just now, in a way.
    client.setQueryData(
      createConnectQueryKey({ schema: checkPayment, ...common }),
      (old) => old && { ...old, checkoutSession: changed },
    );
  };
  return {
    transport,
    session,
    offer: read.data?.offer,
    error: read.error,
    failures: [read.failureReason, check.failureReason],
    checking: check.isFetching,
    checkedState,
    reread: () => void read.refetch(),
    check: () => void check.refetch(),
    apply,
  };
}
