/** All that the control plane serves over plain HTTP besides calls, health and metrics. */

import { type SandboxDeps } from "../payments/sandbox.ts";
import { sandboxRoutes } from "../payments/sandbox_routes.ts";
import type { CheckoutPage } from "./checkout_page.ts";
import type { HttpRoute } from "./route.ts";
import { type Receive, webhookRoute } from "./webhooks.ts";

export function httpRoutes(deps: SandboxDeps, checkoutPage: CheckoutPage, receive: Receive): readonly HttpRoute[] {
  const { now, log } = deps;
  return [...checkoutPage.routes, webhookRoute({ receive, now: () => now(), log }), ...sandboxRoutes(deps)];
}
