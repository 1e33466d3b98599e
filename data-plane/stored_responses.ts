/**
 * What Responses clients refer to by id. Only the upstream that made a thing knows it, so a request that names one goes there
 * and nowhere else; and only the VE that it was made for can name it (`pins.ts`).
 */

import { RESPONSES } from "./endpoints.ts";
import { badRequest, type ErrorAnswer } from "./errors.ts";
import { bridgeOf } from "./formats/index.ts";
import { idsOfRequest, type ResponsesIds } from "./formats/responses/body.ts";
import { type Pin, unpinId } from "./pins.ts";
import type { RouteTable } from "./route_table.ts";
import type { RouteGroup, RouteLm, RoutePm, RouteVe } from "./route_types.ts";

/** Where a request may go, and the upstream's id of the response that it continues. */
export interface Place {
  readonly group: RouteGroup;
  readonly previousId: string | null;
}

/** Targets that are no Logical Model's, in one tier; the first of them is drawn. */
function groupOf(pms: readonly RoutePm[]): RouteGroup {
  const cumulative = pms.map((_, i) => i + 1);
  return { key: "", tiers: [{ tier: 0, pms, cumulative }], pms, refs: 0 };
}

/** Every Physical Model that the VE's Logical Models lead to. */
export function* pmsOf(table: RouteTable, ve: RouteVe): Generator<RoutePm> {
  const seen = new Set<string>();
  for (const { spec } of table.logicalModels(ve)) {
    for (const pm of spec.group.pms) {
      if (seen.has(pm.id)) continue;
      seen.add(pm.id);
      yield pm;
    }
  }
}

/** The stored response that a client's id stands for, and who has it; null: this VE has none of that id. */
export function findStored(table: RouteTable, ve: RouteVe, id: string): { pin: Pin; pm: RoutePm } | null {
  const pms = new Map([...pmsOf(table, ve)].map((pm) => [pm.id, pm]));
  const pin = unpinId(ve.pinSecret, id, pms.keys());
  const pm = pin === null ? undefined : pms.get(pin.pmId);
  return pin === null || pm === undefined ? null : { pin, pm };
}

function unsupported(param: string, message: string): ErrorAnswer {
  return badRequest(message, param, "unsupported_parameter");
}

/** The AI SDK refers to its earlier items unless it is told that nothing is stored. */
const NO_REFERENCES =
  "Items cannot be named by their ids at this model. Send them whole, as the AI SDK does with `store: false` among the options " +
  "of its provider, or use `previous_response_id`.";

/** What no request may name here, whatever its target. */
function refused(ids: ResponsesIds): ErrorAnswer | null {
  if (ids.background)
    return unsupported("background", "`background` is not supported: its answer would come after it is billed.");
  if (ids.conversation !== null)
    return unsupported("conversation", "`conversation` is not supported. Use `previous_response_id` instead.");
  return null;
}

/**
 * Items of earlier responses have no tag: whoever knows an id, which nobody can guess, names the item. They are known where
 * they were made, so all targets that store anything must be of one account.
 */
function referring(lm: RouteLm): Place | ErrorAnswer {
  const { group } = lm.spec;
  const storing = group.pms.filter((pm) => bridgeOf(RESPONSES, pm)?.translated === false);
  if (new Set(storing.map(({ provider }) => provider)).size !== 1) return unsupported("input", NO_REFERENCES);
  return { group: storing.length === group.pms.length ? group : groupOf(storing), previousId: null };
}

/** Of a VE's own Provider for files: only its targets know them. */
function knowing(ve: RouteVe, lm: RouteLm): readonly RoutePm[] {
  return lm.spec.group.pms.filter(({ provider }) => provider.id === ve.passthroughProviderId);
}

/** Where a request may go that names files of the VE. @param param what names them */
export function filesPlace(ve: RouteVe, lm: RouteLm, param: string): Place | ErrorAnswer {
  const pms = ve.passthroughProviderId === "" ? [] : knowing(ve, lm);
  if (pms.length === 0)
    return badRequest("The model cannot read stored files of this endpoint.", param, "file_not_found");
  return { group: groupOf(pms), previousId: null };
}

/** Where a Responses request may go. Without ids that is wherever its Logical Model leads. */
export function placeOf(table: RouteTable, ve: RouteVe, lm: RouteLm, body: Buffer): Place | ErrorAnswer {
  const ids = idsOfRequest(body);
  const { group } = lm.spec;
  if (ids === null) return { group, previousId: null };
  const wrong = refused(ids);
  if (wrong !== null) return wrong;
  const { previousResponseId: previous } = ids;
  if (previous !== null) return continued(table, ve, lm, previous);
  if (ids.files.length > 0) return filesPlace(ve, lm, "input");
  if (ids.itemReferences.length > 0) return referring(lm);
  // Templates are made by the merchant at one Provider.
  if (ids.prompt !== null && new Set(group.pms.map(({ provider }) => provider.id)).size > 1)
    return unsupported("prompt", "`prompt` is not supported for a model with several Providers.");
  return { group, previousId: null };
}

/** The same account at the upstream has it, whichever of its models is asked. */
function continued(table: RouteTable, ve: RouteVe, lm: RouteLm, previous: string): Place | ErrorAnswer {
  const stored = findStored(table, ve, previous);
  if (stored === null) {
    const message = `Previous response with id '${previous.slice(0, 128)}' not found.`;
    return badRequest(message, "previous_response_id", "previous_response_not_found");
  }
  const pms = lm.spec.group.pms.filter(({ provider }) => provider === stored.pm.provider);
  if (pms.length === 0) {
    const message = "The model cannot continue a response that another Provider made.";
    return badRequest(message, "previous_response_id", "previous_response_not_found");
  }
  return { group: groupOf(pms), previousId: stored.pin.upstreamId };
}
