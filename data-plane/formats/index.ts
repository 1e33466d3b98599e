import { ProviderFormat } from "../route_types.ts";
import type { Format } from "./format.ts";
import { openai } from "./openai.ts";

/** The adapter of a Provider's format; undefined for formats that are stored but not routed to. */
export function formatOf(format: number): Format | undefined {
  return format === ProviderFormat.OPENAI ? openai : undefined;
}
