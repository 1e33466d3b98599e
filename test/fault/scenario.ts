/** What every fault scenario is: a name, parameters for the short and the long form, and a run that throws if a promise breaks. */

export interface Run {
  /** Aborts when somebody stops the run: waits end, and what was started is ended. */
  readonly signal: AbortSignal;
  /** One line about how far it is. */
  progress(line: string): void;
  /** A small table. */
  figures(title: string, rows: readonly Figures[]): void;
}

export type Figures = Readonly<Record<string, string | number>>;

export interface Scenario {
  readonly name: string;
  /** One line: what is done to the system, and what must hold. */
  readonly title: string;
  /** Bounded by seconds, for `npm test`. */
  short(run: Run): Promise<void>;
  /** For `npm run fault`. */
  long(run: Run): Promise<void>;
}

export function defineScenario<P>(given: {
  readonly name: string;
  readonly title: string;
  readonly short: P;
  readonly long: P;
  run(params: P, run: Run): Promise<void>;
}): Scenario {
  const { name, title, short, long } = given;
  return { name, title, short: (run) => given.run(short, run), long: (run) => given.run(long, run) };
}

/** A table as lines of text: a head, then the rows, numbers to the right. */
export function tableOf(rows: readonly Figures[]): string {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = rows.map((row) => names.map((name) => String(row[name] ?? "")));
  const widths = names.map((name, i) => Math.max(name.length, ...cells.map((line) => line[i]!.length)));
  const isNumber = (text: string): boolean => /^-?[\d.,]+( ?\S{1,3})?$/.test(text);
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, i) => (isNumber(text) ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd();
  return [line(names), ...cells.map(line)].map((text) => `  ${text}`).join("\n");
}

/** A run that prints as it goes; `since` is shown with each line. */
export function printingRun(name: string, signal: AbortSignal): Run {
  const beganMs = performance.now();
  const seconds = (): string => `${((performance.now() - beganMs) / 1000).toFixed(1)} s`.padStart(8);
  return {
    signal,
    progress: (line) => console.log(`${seconds()}  ${name}: ${line}`),
    figures: (title, rows) => console.log(`\n${name}: ${title}\n${tableOf(rows)}\n`),
  };
}

export interface Spread {
  readonly median: number;
  readonly worst: number;
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  return { median: sorted[Math.floor(sorted.length / 2)] ?? 0, worst: sorted.at(-1) ?? 0 };
}

export function ms(value: number): string {
  return `${Math.round(value)} ms`;
}

/** Random numbers in [0, 1) that a seed decides. */
export function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
