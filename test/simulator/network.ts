/** The network between nodes and the control plane: delay, loss, duplicates, reordering, partitions. */

import type { Random } from "./random.ts";
import type { Actor, Scheduler } from "./scheduler.ts";

export interface Weather {
  /** Probability that a message is lost. */
  readonly loss: number;
  /** Probability that it arrives twice. */
  readonly twice: number;
  /** The longest delay of most messages. */
  readonly delayMs: number;
  /** Probability that it takes up to a hundred times as long. */
  readonly slow: number;
}

export const CALM: Weather = { loss: 0, twice: 0, delayMs: 20, slow: 0 };

export class Network {
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #cut = new Set<string>();
  weather: Weather = CALM;
  /** Since when messages of a node, or of all, come through well. */
  readonly #calmSince = new Map<string, number>();
  #weatherSince = 0;
  lost = 0;
  doubled = 0;
  delivered = 0;

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  setWeather(weather: Weather): void {
    this.weather = weather;
    this.#weatherSince = weather === CALM ? this.#scheduler.now : Number.POSITIVE_INFINITY;
  }

  cut(node: string): void {
    this.#cut.add(node);
    this.#calmSince.set(node, Number.POSITIVE_INFINITY);
  }

  heal(node: string): void {
    this.#cut.delete(node);
    this.#calmSince.set(node, this.#scheduler.now);
  }

  isCut(node: string): boolean {
    return this.#cut.has(node);
  }

  /** Since when nothing has been lost or late between this node and the control plane. */
  calmSince(node: string): number {
    return Math.max(this.#weatherSince, this.#calmSince.get(node) ?? 0);
  }

  /** Brings a message of or for a node to `to`, where `deliver` runs; perhaps never, perhaps twice. False: known to be lost. */
  send(node: string, to: Actor, deliver: () => void): boolean {
    const { loss, twice } = this.weather;
    if (this.#cut.has(node) || this.#random.chance(loss)) {
      this.lost++;
      return false;
    }
    const copies = this.#random.chance(twice) ? 2 : 1;
    if (copies === 2) this.doubled++;
    for (let copy = 0; copy < copies; copy++) {
      this.#scheduler.after(
        this.#delay(),
        () => {
          if (this.#cut.has(node)) {
            this.lost++;
            return;
          }
          this.delivered++;
          deliver();
        },
        to,
      );
    }
    return true;
  }

  #delay(): number {
    const { delayMs, slow } = this.weather;
    const usual = this.#random.between(0.5, delayMs);
    return this.#random.chance(slow) ? usual * this.#random.between(2, 100) : usual;
  }
}
