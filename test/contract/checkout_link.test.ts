/** What a node signs, the control plane believes: the two planes write the rule of checkout links down apart. */

import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { signCheckoutLink, verifyCheckoutLink } from "../../control-plane/checkout_link.ts";
import { toResource } from "../../control-plane/feed/resources.ts";
import { createSecrets } from "../../control-plane/secrets.ts";
import { parseSettings } from "../../control-plane/settings.ts";
import { checkoutUrl } from "../../data-plane/checkout_link.ts";
import { RouteTable } from "../../data-plane/route_table.ts";
import { snapshot } from "../../data-plane/testing.ts";
import { ResourceSchema } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";
import { pino } from "pino";

const SECRETS = createSecrets(new Uint8Array(32).fill(5));
const VE = "ve_aaaaaaaaaaaaaaaaaaaaaaaaaa";
const NOW = Date.UTC(2027, 0, 2, 3, 4, 5);
/** How far the clocks may be apart. */
const SKEW_MS = 300_000;
const LIFE_MS = 3_600_000;
const STEP_MS = 60_000;

/** The link that a node shows, which got the VE from this control plane's feed. */
function nodeLink(veId: string, nowMs: number): string {
  const deps = { secrets: SECRETS, settings: { ...parseSettings({}), publicUrl: "https://pay.example" }, log: pino() };
  const doc = { name: "v", disabled: false, low_balance: "0", offline_grace: "0", rate_limits: null };
  const table = new RouteTable();
  const resource = toResource(deps, { kind: "virtual_endpoint", id: veId, doc }, true);
  snapshot(table, [create(ResourceSchema, resource)]);
  const url = new URL(checkoutUrl(table.ve(veId)!, nowMs));
  expect(url.searchParams.get("ve_id")).toBe(veId);
  return url.searchParams.get("link")!;
}

const verify = (veId: string, link: string, nowMs: number): boolean => verifyCheckoutLink(SECRETS, veId, link, nowMs);

test("both sign alike, but that nodes let links end with a full minute", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2e7, max: 6e7 }), (minute) => {
      expect(signCheckoutLink(SECRETS, VE, minute * STEP_MS)).toBe(nodeLink(VE, minute * STEP_MS));
    }),
  );
});

test.each([
  ["at once", 0, true],
  ["until it ends", LIFE_MS, true],
  ["with the node's clock behind, until it ends", LIFE_MS + SKEW_MS - 1000, true],
  ["with the node's clock ahead", STEP_MS - SKEW_MS, true],
  ["no longer than that", LIFE_MS + STEP_MS + SKEW_MS + 1000, false],
])("a node's link is believed %s", (_, laterMs, good) => {
  expect(verify(VE, nodeLink(VE, NOW), NOW + laterMs)).toBe(good);
});

test("it says nothing of another VE, or when it was changed", () => {
  const link = nodeLink(VE, NOW);
  expect(verify("ve_bbbbbbbbbbbbbbbbbbbbbbbbbb", link, NOW)).toBe(false);
  const [expiry, mac] = link.split(".") as [string, string];
  const swapped = (mac.startsWith("A") ? "B" : "A") + mac.slice(1);
  for (const wrong of [
    `${Number(expiry) + 60}.${mac}`,
    `${expiry}.${swapped}`,
    expiry,
    `${expiry}.`,
    `.${mac}`,
    mac,
    "",
  ])
    expect([wrong, verify(VE, wrong, NOW)]).toEqual([wrong, false]);
});
