/** Delivers one report: the same bytes again and again, with a growing pause, until there is an answer. */

import { Code, ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import type {
  ReportUsageRequest,
  ReportUsageResponse,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { ReportClient } from "../control_plane.ts";

export const REPORT_TIMEOUT_MS = 10_000;
/** When somebody waits, a report that is not answered after this long is sent once more beside it. */
export const IMPATIENT_MS = 150;
/** After that, as often as this, and so many calls in all. */
const CALL_AGAIN_MS = 500;
const CALLS_MAX = 5;
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
   * without its lease lines, so that one account's figures cannot keep the records of all from the ledger.
   */
  async send(request: ReportUsageRequest, signal: AbortSignal): Promise<Delivered> {
    const firstSentAt = this.#options.now();
    for (;;) {
      signal.throwIfAborted();
      this.#attemptAt = this.#options.now();
      try {
        const { response, sentAt } = await this.#attempt(request, signal);
        this.#succeeded();
        return { response, sentAt, firstSentAt };
      } catch (error) {
        signal.throwIfAborted();
        const lines = request.leases.length + request.limits.length;
        if (ConnectError.from(error).code === Code.InvalidArgument && lines > 0) {
          this.#options.log.error({ err: error, lines }, "lease lines were refused and left out");
          request.leases = [];
          request.limits = [];
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

  /**
   * One call; and the same again, a few times, when somebody waits and the answer does not come: it may be lost, or the
   * control plane holds it back while it asks other nodes for Credits, and these may wait for this node's next report in
   * turn. To the control plane the later calls are repetitions, which it answers at once.
   */
  async #attempt(request: ReportUsageRequest, signal: AbortSignal): Promise<Omit<Delivered, "firstSentAt">> {
    const { client, now } = this.#options;
    const done = new AbortController();
    const options = { timeoutMs: REPORT_TIMEOUT_MS, signal: AbortSignal.any([signal, done.signal]) };
    const answer = Promise.withResolvers<Omit<Delivered, "firstSentAt">>();
    let [made, failed] = [0, 0];
    let firstError: unknown;
    let timer: NodeJS.Timeout | undefined;
    const call = (): void => {
      made++;
      const sentAt = now();
      client.reportUsage(request, options).then(
        (response) => answer.resolve({ response, sentAt }),
        (error: unknown) => {
          firstError ??= error;
          if (++failed === made) answer.reject(firstError);
        },
      );
    };
    const again = (): void => {
      if (made >= CALLS_MAX) return;
      call();
      timer = setTimeout(again, CALL_AGAIN_MS);
    };
    call();
    this.#hurry = () => {
      timer ??= setTimeout(again, Math.max(0, this.#attemptAt + IMPATIENT_MS - now()));
    };
    try {
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      this.#hurry = null;
      done.abort();
    }
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
