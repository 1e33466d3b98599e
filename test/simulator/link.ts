/** The report client of a node, over the simulated network: the real bytes, and the errors that the real one gives. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type CallOptions, Code, ConnectError } from "@connectrpc/connect";
import type { ReportClient } from "../../data-plane/control_plane.ts";
import {
  GetWalletResponseSchema,
  type ReportUsageRequest,
  ReportUsageRequestSchema,
  type ReportUsageResponse,
  ReportUsageResponseSchema,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { Control } from "./control.ts";
import type { Network } from "./network.ts";
import type { Random } from "./random.ts";
import type { Actor, Scheduler } from "./scheduler.ts";

export interface LinkOptions {
  readonly node: string;
  readonly actor: Actor;
  readonly scheduler: Scheduler;
  readonly network: Network;
  readonly control: Control;
  readonly random: Random;
  /** The node reads an answer within this step. */
  onAnswer(request: ReportUsageRequest, response: ReportUsageResponse): void;
}

/** Runs one call; `start` gets what ends it. */
function call<T>(
  { scheduler, actor }: LinkOptions,
  options: CallOptions | undefined,
  start: (done: (value: T) => boolean, fail: (code: Code) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let over = false;
    /** False: it had ended before. */
    const end = (run: () => void): boolean => {
      if (over) return false;
      over = true;
      if (timer !== null) timer.active = false;
      run();
      return true;
    };
    const fail = (code: Code): void => void end(() => reject(new ConnectError("simulated", code)));
    const ms = options?.timeoutMs;
    const timer = ms === undefined ? null : scheduler.after(ms, () => fail(Code.DeadlineExceeded), actor);
    options?.signal?.addEventListener("abort", () => fail(Code.Canceled));
    start((value) => end(() => resolve(value)), fail);
  });
}

export function linkOf(options: LinkOptions): ReportClient {
  const { node, actor, scheduler, network, control, random } = options;
  /** A connection that breaks is noticed soon, or not at all. */
  const broken = (fail: (code: Code) => void): void => {
    if (random.chance(0.6)) scheduler.after(random.between(1, 400), () => fail(Code.Unavailable), actor);
  };
  const reportUsage = (request: ReportUsageRequest, callOptions?: CallOptions): Promise<ReportUsageResponse> => {
    const bytes = toBinary(ReportUsageRequestSchema, request);
    return call(options, callOptions, (done, fail) => {
      const replica = control.route();
      if (replica === null) return broken(fail);
      const sent = network.send(node, replica.actor, () => {
        control.handle(replica, bytes, (answer) => {
          const back = network.send(node, actor, () => {
            if (answer === null) return fail(Code.Unavailable);
            const response = fromBinary(ReportUsageResponseSchema, answer);
            if (done(response)) options.onAnswer(request, response);
          });
          if (!back) broken(fail);
        });
      });
      if (!sent) broken(fail);
    });
  };
  const getWallet = ({ veId }: { veId: string }, callOptions?: CallOptions) =>
    call(options, callOptions, (done, fail) => {
      const replica = control.route();
      if (replica === null || !control.dbUp) return broken(fail);
      network.send(node, replica.actor, () => {
        const wallet = control.wallet(veId);
        network.send(node, actor, () => done(create(GetWalletResponseSchema, { wallet })));
      });
    });
  return { reportUsage, getWallet } as unknown as ReportClient;
}
