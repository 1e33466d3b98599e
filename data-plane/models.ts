/** PURE. `GET /v1/models` from the route table. */

import type { RouteTable } from "./route_table.ts";
import type { RouteLm, RouteVe } from "./route_types.ts";

const OWNER = "tokenbill";

function modelOf(lm: RouteLm): Record<string, unknown> {
  return { id: lm.spec.name, object: "model", created: lm.createUnixS, owned_by: OWNER };
}

export function listModels(table: RouteTable, ve: RouteVe): Buffer {
  const data = [...table.logicalModels(ve)].map(modelOf).sort((a, b) => (String(a["id"]) < String(b["id"]) ? -1 : 1));
  return Buffer.from(JSON.stringify({ object: "list", data }));
}

/** Null if the VE has no model of this name. */
export function showModel(table: RouteTable, ve: RouteVe, name: string): Buffer | null {
  const lm = table.logicalModel(ve, name);
  return lm === undefined ? null : Buffer.from(JSON.stringify(modelOf(lm)));
}
