/** PURE: how many deliveries of each endpoint are under way, and how many more there may be. */

/** Of one endpoint at a time. */
export const ENDPOINT_IN_FLIGHT_MAX = 4;
/** Of one whose last attempt failed: what does not answer holds little. */
export const TROUBLED_IN_FLIGHT_MAX = 1;
/** Endpoints that are remembered as troubled; beyond these the oldest is forgotten. */
const TROUBLED_MAX = 1000;

export class Rooms {
  readonly #inFlight = new Map<string, number>();
  readonly #troubled = new Set<string>();
  #count = 0;

  /** Of all endpoints. */
  get count(): number {
    return this.#count;
  }

  enter(endpointId: string): void {
    this.#inFlight.set(endpointId, (this.#inFlight.get(endpointId) ?? 0) + 1);
    this.#count += 1;
  }

  leave(endpointId: string): void {
    const left = this.#inFlight.get(endpointId)! - 1;
    if (left === 0) this.#inFlight.delete(endpointId);
    else this.#inFlight.set(endpointId, left);
    this.#count -= 1;
  }

  note(endpointId: string, isWell: boolean): void {
    this.#troubled.delete(endpointId);
    if (isWell) return;
    this.#troubled.add(endpointId);
    if (this.#troubled.size > TROUBLED_MAX) this.#troubled.delete(this.#troubled.values().next().value!);
  }

  /** Endpoints with less room than ENDPOINT_IN_FLIGHT_MAX, and how much. */
  less(): Map<string, number> {
    const rooms = new Map<string, number>();
    for (const id of this.#troubled) rooms.set(id, TROUBLED_IN_FLIGHT_MAX);
    for (const [id, count] of this.#inFlight) {
      rooms.set(id, Math.max(0, (rooms.get(id) ?? ENDPOINT_IN_FLIGHT_MAX) - count));
    }
    return rooms;
  }
}
