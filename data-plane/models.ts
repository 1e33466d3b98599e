/** PURE. `GET /v1/models` from the route table, as clients of OpenAI or of Anthropic read it. */

import type { ClientShape } from "./formats/format.ts";
import type { RouteTable } from "./route_table.ts";
import type { RouteLm, RouteVe } from "./route_types.ts";

const OWNER = "tokenbill";

function modelOf({ spec, createUnixS }: RouteLm, shape: ClientShape): Record<string, unknown> {
  const { name } = spec;
  if (shape !== "messages") return { id: name, object: "model", created: createUnixS, owned_by: OWNER };
  const created = new Date(createUnixS * 1000).toISOString().replace(/\.\d+/, "");
  return { type: "model", id: name, display_name: name, created_at: created };
}

export function listModels(table: RouteTable, ve: RouteVe, shape: ClientShape): Buffer {
  const models = [...table.logicalModels(ve)].map((lm) => modelOf(lm, shape));
  const data = models.sort((a, b) => (String(a["id"]) < String(b["id"]) ? -1 : 1));
  const ids = { first_id: data[0]?.["id"] ?? null, last_id: data.at(-1)?.["id"] ?? null };
  return Buffer.from(
    JSON.stringify(shape === "messages" ? { data, has_more: false, ...ids } : { object: "list", data }),
  );
}

/** Null if the VE has no model of this name. */
export function showModel(table: RouteTable, ve: RouteVe, name: string, shape: ClientShape): Buffer | null {
  const lm = table.logicalModel(ve, name);
  return lm === undefined ? null : Buffer.from(JSON.stringify(modelOf(lm, shape)));
}
