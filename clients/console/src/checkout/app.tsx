/** From what the visit is about to what is on the page. */

import { createClient } from "@connectrpc/connect";
import { useQuery } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState } from "react";
import { CheckoutService } from "../../../ts/src/gen/tokenbill/v1/checkout_service_pb.ts";
import { makeTransport } from "../shared/calls.ts";
import { useMessages } from "../shared/i18n/context.tsx";
import { troubleOf } from "../shared/trouble.ts";
import { type Origin, sessionPath } from "./address.ts";
import { Checkout } from "./checkout.tsx";
import { Frame, Loading } from "./frame.tsx";
import type { Target } from "./landing.ts";
import type { Memory, Opened } from "./memory.ts";
import { MESSAGES } from "./messages.ts";
import { ServerFailed, Statement, Throttled } from "./statements.tsx";

export function App({ landing, memory }: { readonly landing: Target; readonly memory: Memory }): ReactNode {
  const [target, setTarget] = useState(landing);
  const t = useMessages(MESSAGES);
  switch (target.kind) {
    case "open":
      return (
        <Opening
          key={target.attempt}
          origin={target.origin}
          attempt={target.attempt}
          onOpened={(opened) => {
            memory.keep(opened.id, { secret: opened.secret, origin: target.origin });
            memory.setOpened(target.origin, opened);
            window.history.replaceState(null, "", sessionPath(window.location.pathname, opened.id));
            setTarget({ kind: "session", ...opened, wechatCode: null });
          }}
        />
      );
    case "session":
      return (
        <Checkout
          key={target.id}
          {...target}
          memory={memory}
          onStartAgain={(origin) => {
            memory.forgetOpened(origin);
            setTarget({ kind: "open", origin, attempt: Date.now() });
          }}
        />
      );
    case "closed":
      return <Statement title={t.closedTitle} text={t.closedText} />;
    case "nothing":
      return <Statement title={t.linkTitle} text={t.linkText} />;
  }
}

interface OpeningProps {
  readonly origin: Origin;
  readonly attempt: number;
  readonly onOpened: (opened: Opened) => void;
}

/** Opens a session: a query rather than a mutation, so that rendering twice asks once. */
function Opening({ origin, attempt, onOpened }: OpeningProps): ReactNode {
  const t = useMessages(MESSAGES);
  const opening = useQuery({
    queryKey: ["open", origin, attempt],
    // Without its signal: React's strict mode unmounts once for nothing, and an aborted call may have made a session.
    queryFn: async () => {
      const client = createClient(CheckoutService, makeTransport(null));
      const { checkoutSession, secret } = await client.createCheckoutSession({ ...origin }).catch((error: unknown) => {
        const trouble = troubleOf(error);
        if (trouble.kind !== "invalid" || trouble.field !== "return_url") throw error;
        // Where the payer came from is not allowed to be gone back to: they can pay all the same.
        return client.createCheckoutSession({ ...origin, returnUrl: "" });
      });
      return { id: checkoutSession?.id ?? "", secret };
    },
    staleTime: Infinity,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
  });
  const { data: opened, error } = opening;
  useEffect(() => {
    if (opened !== undefined) onOpened(opened);
    // Once for each session, whoever listens.
  }, [opened]);
  if (error === null) {
    const trouble = opening.failureReason === null ? null : troubleOf(opening.failureReason);
    return (
      <Frame lost={trouble?.kind === "connection" || opening.fetchStatus === "paused"}>
        <Loading text={t.openedLoading} />
      </Frame>
    );
  }
  const trouble = troubleOf(error);
  const again = (): void => void opening.refetch();
  switch (trouble.kind) {
    case "throttled":
      return <Throttled trouble={trouble} onAgain={again} />;
    case "closed":
    case "invalid":
      return <Statement title={t.linkTitle} text={t.linkText} />;
    default:
      return <ServerFailed onAgain={again} />;
  }
}
