/** The command line of the soak. */

import { parseArgs } from "node:util";

export interface SoakOptions {
  readonly minutes: number;
  readonly seed: number;
  readonly nodes: number;
  /** Clients that ask one after the other. */
  readonly clients: number;
}

export const DEFAULTS: SoakOptions = { minutes: 10, seed: 1, nodes: 2, clients: 16 };

/** @throws Error what is wrong */
export function parseSoakArgs(args: readonly string[]): SoakOptions {
  const text = { type: "string" } as const;
  const options = { minutes: text, seed: text, nodes: text, clients: text };
  const { values } = parseArgs({ args: [...args], options });
  const number = (name: keyof SoakOptions, isGood: (value: number) => boolean): number => {
    const given = values[name];
    const value = given === undefined ? DEFAULTS[name] : Number(given);
    if (!isGood(value)) throw new Error(`--${name} cannot be ${given}`);
    return value;
  };
  const isCount = (value: number): boolean => Number.isInteger(value) && value >= 1 && value <= 64;
  return {
    minutes: number("minutes", (value) => value > 0 && value <= 24 * 60),
    seed: number("seed", Number.isSafeInteger),
    nodes: number("nodes", isCount),
    clients: number("clients", isCount),
  };
}
