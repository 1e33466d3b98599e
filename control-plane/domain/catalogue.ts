/** PURE: what a catalogue of Providers, Physical Models and Logical Models must be like. */

import {
  compileDetailedPrice,
  compileSimplePrice,
  type CompiledPrice,
  type MeterPrice,
  PriceError,
  type SimplePrice,
} from "../../core/pricing.ts";
import { DomainError, invalidField } from "./errors.ts";

/** Numbers equal `tokenbill.v1.ProviderFormat`. */
export const ProviderFormat = { OPENAI: 1, AZURE_OPENAI: 2, ANTHROPIC: 3, AWS_BEDROCK: 4 } as const;

/** The formats that this release can route to: whatever a newer one stored is kept, and passed over. */
const ROUTABLE_FORMATS: ReadonlySet<number> = new Set(Object.values(ProviderFormat));

export function isRoutableFormat(format: number): boolean {
  return ROUTABLE_FORMATS.has(format);
}

export interface Target {
  readonly physicalModelId: string;
  readonly tier: number;
  readonly weight: number;
}

/** What decides whether a Logical Model may lead to a Physical Model. */
export interface TargetModel {
  readonly id: string;
  /** Of its Provider. */
  readonly format: number;
  /** Null: it has none. A price covers something; whether that is what an endpoint consumes is for the node to see. */
  readonly price: CompiledPrice | null;
}

/** `field` is where the targets are in the request. @throws DomainError invalid_field */
export function checkTargets(targets: readonly Target[], field: string): void {
  const seen = new Set<string>();
  for (const [index, { physicalModelId }] of targets.entries()) {
    if (seen.has(physicalModelId)) {
      throw invalidField(
        `${field}[${index}].physical_model_id`,
        "each Physical Model can be a target once: join the two into one",
        "unique",
      );
    }
    seen.add(physicalModelId);
  }
  if (!targets.some(({ weight }) => weight > 0)) {
    throw invalidField(
      field,
      "at least one target needs a weight above 0: one with weight 0 is only a fallback",
      "weight",
    );
  }
}

/**
 * Whether every target may be routed to. `models` are those of the merchant alone, so that the answer is the same for a
 * model that never was and one that belongs to somebody else.
 * @throws DomainError not_found, format_not_routable, no_price
 */
export function checkRoutable(
  targets: readonly Target[],
  models: ReadonlyMap<string, TargetModel>,
  field: string,
): void {
  for (const [index, { physicalModelId }] of targets.entries()) {
    const at = `${field}[${index}].physical_model_id`;
    const model = models.get(physicalModelId);
    if (model === undefined)
      throw new DomainError("not_found", `${at}: there is no Physical Model with this id`, { field: at });
    if (!isRoutableFormat(model.format)) {
      throw new DomainError(
        "format_not_routable",
        `${at}: its Provider's format is not known to this release; use a Provider of one of the others`,
        {
          field: at,
        },
      );
    }
    if (model.price === null) {
      throw new DomainError(
        "no_price",
        `${at}: the Physical Model has no price; set one with UpdatePhysicalModel, 0 is allowed`,
        { field: at },
      );
    }
  }
}

function asDomainError(error: unknown, field: string): never {
  if (!(error instanceof PriceError)) throw error;
  const at = `${field}.${error.field}`;
  if (error.code === "price_not_exact")
    throw new DomainError("price_not_exact", `${at}: ${error.message}`, { field: at });
  throw invalidField(at, error.message, "price");
}

/** @throws DomainError price_not_exact, invalid_field */
export function checkSimplePrice(id: string, price: SimplePrice, field: string): CompiledPrice {
  try {
    return compileSimplePrice(id, price);
  } catch (error) {
    return asDomainError(error, field);
  }
}

/** @throws DomainError price_not_exact, invalid_field */
export function checkDetailedPrice(id: string, meters: readonly MeterPrice[], field: string): CompiledPrice {
  try {
    return compileDetailedPrice(id, meters);
  } catch (error) {
    return asDomainError(error, field);
  }
}
