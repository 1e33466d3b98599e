/** Delivers one report: the same bytes again and again, with a growing pause, until there is an answer. */

import { Code, ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import type {
  ReportUsageRequest,
  ReportUsageResponse,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { ReportClient } from "../control_plane.ts";

export const REPORT_TIMEOUT_MS = 10_000;
export const BACKOFF_MIN_MS = 100;
export const BACKOFF_MAX_MS = 5_000;

export interface SenderOptions {
  readonly client: ReportClient;
  readonly log: Logger;
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  /** In [0, 1). */
  random(): number;
  /** After each attempt. */
  onAttempt(delivered: boolean): void;
}

export interface Delivered {
  readonly response: ReportUsageResponse;
  /** When the attempt that was answered was sent, and the first one. */
  readonly sentAt: number;
  readonly firstSentAt: number;
}

/** The pause after the `failures`th failure in a row: doubling, between a half and the whole of it at random. */
export function backoffMs(failures: number, random: number): number {
  const most = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(failures - 1, 16));
  return most * (0.5 + random / 2);
}

export class ReportSender {
  readonly #options: SenderOptions;
  #failures = 0;
  #attemptAt = 0;
  #hurry: (() => void) | null = null;
  #kicked = false;

  constructor(options: SenderOptions) {
    this.#options = options;
  }

  /**
   * Resolves with the answer; rejects only when `signal` aborts. What is refused as invalid was not applied: it goes again
   * without its lease lines, so that one VE's figures cannot keep the records of all from the ledger.
   */
  async send(request: ReportUsageRequest, signal: AbortSignal): Promise<Delivered> {
    const { client, now } = this.#options;
    const firstSentAt = now();
    for (;;) {
      signal.throwIfAborted();
      this.#attemptAt = now();
      try {
        const response = await client.reportUsage(request, { timeoutMs: REPORT_TIMEOUT_MS, signal });
        this.#succeeded();
        return { response, sentAt: this.#attemptAt, firstSentAt };
      } catch (error) {
        signal.throwIfAborted();
        if (ConnectError.from(error).code === Code.InvalidArgument && request.leases.length > 0) {
          this.#options.log.error(
            { err: error, leases: request.leases.length },
            "lease lines were refused and left out",
          );
          request.leases = [];
          continue;
        }
        this.#failed(error);
      }
      await this.#pause(signal);
    }
  }

  /** Somebody waits: the next attempt comes as soon as the shortest pause allows. */
  kick(): void {
    this.#kicked = true;
    this.#hurry?.();
  }

  #succeeded(): void {
    if (this.#failures > 0) this.#options.log.info({ failures: this.#failures }, "the control plane answers again");
    this.#failures = 0;
    this.#kicked = false;
    this.#options.onAttempt(true);
  }

  #failed(error: unknown): void {
    this.#failures++;
    const { code, rawMessage } = ConnectError.from(error);
    const facts = { code: Code[code], reason: rawMessage, failures: this.#failures };
    // Once when it begins; what is refused rather than unreachable will not heal by itself.
    if (this.#failures === 1)
      this.#options.log.warn(facts, "a report could not be delivered; it is sent again until it is");
    else if (this.#failures % 100 === 0) this.#options.log.error(facts, "a report still cannot be delivered");
    this.#options.onAttempt(false);
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const { now, random } = this.#options;
    const wait = Promise.withResolvers<void>();
    let timer = setTimeout(wait.resolve, backoffMs(this.#failures, random()));
    this.#hurry = () => {
      clearTimeout(timer);
      timer = setTimeout(wait.resolve, Math.max(0, this.#attemptAt + BACKOFF_MIN_MS - now()));
    };
    if (this.#kicked) this.#hurry();
    this.#kicked = false;
    const onAbort = (): void => wait.resolve();
    signal.addEventListener("abort", onAbort);
    await wait.promise;
    signal.removeEventListener("abort", onAbort);
    clearTimeout(timer);
    this.#hurry = null;
  }
}
