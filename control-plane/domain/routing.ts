/** PURE: what the routing of a Logical Model must be like, beyond its targets. */

import { invalidField } from "./errors.ts";

/** Numbers equal `tokenbill.v1.StickySource`. */
export const StickySource = { USER: 1, PROMPT_CACHE_KEY: 2, HEADER: 3 } as const;

export interface Sticky {
  readonly sources: readonly number[];
  readonly header: string;
}

/** `field` is where it is in the request. @throws DomainError invalid_field */
export function checkSticky({ sources, header }: Sticky, field: string): void {
  const byHeader = sources.includes(StickySource.HEADER);
  if (byHeader && header === "")
    throw invalidField(`${field}.header`, "STICKY_SOURCE_HEADER needs the name of the header to look at", "required");
  if (!byHeader && header !== "") {
    throw invalidField(
      `${field}.header`,
      "only STICKY_SOURCE_HEADER looks at a header: add it to sources, or leave the header out",
      "exclusive",
    );
  }
}

/** Deadlines of one target. @throws DomainError invalid_field */
export function checkTargetDeadlines(deadlines: { readonly totalMs: number }, field: string): void {
  if (deadlines.totalMs === 0) return;
  throw invalidField(
    `${field}.total_ms`,
    "the total is of the whole request, with all its targets: set it in the Logical Model's deadlines",
    "zero",
  );
}
