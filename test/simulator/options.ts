/** The command line of the simulator. */

export interface Options {
  readonly seeds: number;
  readonly first: number;
  /** One seed alone, or null. */
  readonly seed: number | null;
  readonly trace: boolean;
  readonly mutation: string | null;
  readonly workers: number;
  /** Seeds of this worker: those that leave `part` when divided by `workers`. */
  readonly part: number | null;
}

function whole(name: string, text: string | undefined): number {
  const value = Number(text);
  if (text === undefined || !Number.isSafeInteger(value) || value < 0)
    throw new Error(`--${name} needs a whole number, not ${text}`);
  return value;
}

/** @throws Error what is wrong */
export function parseOptions(args: readonly string[]): Options {
  const given = new Map<string, string | undefined>();
  for (let at = 0; at < args.length; at++) {
    const name = args[at]!;
    if (!/^--(seeds|first|seed|trace|mutation|workers|part)$/.test(name)) throw new Error(`unknown option ${name}`);
    given.set(name.slice(2), name === "--trace" ? "" : args[++at]);
  }
  const number = (name: string, otherwise: number): number =>
    given.has(name) ? whole(name, given.get(name)) : otherwise;
  return {
    seeds: number("seeds", 10_000),
    first: number("first", 1),
    seed: given.has("seed") ? number("seed", 0) : null,
    trace: given.has("trace"),
    mutation: given.get("mutation") ?? null,
    workers: Math.max(1, number("workers", 2)),
    part: given.has("part") ? number("part", 0) : null,
  };
}
