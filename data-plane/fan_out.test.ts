/** Calls that are several: all of them end together. */

import { expect, test } from "vitest";
import { FAN_OUT_BYTES_MAX, fanOut } from "./fan_out.ts";
import type { OutboundRequest, OutboundSink, Upstream } from "./transport.ts";

test("answers that are too long end every call, the one that is too long too", () => {
  const sinks: OutboundSink[] = [];
  const aborted: number[] = [];
  const upstream: Upstream = {
    send(_, sink) {
      const at = sinks.push(sink) - 1;
      return { abort: () => void aborted.push(at), pause() {}, resume() {} };
    },
    close: async () => {},
  };
  const errors: string[] = [];
  const fail = () => expect.unreachable();
  const one: OutboundRequest = { origin: "http://a", path: "/", method: "POST", headers: [], body: null };
  const onError = (_: string, detail: string) => void errors.push(detail);
  fanOut(upstream).send({ ...one, others: [one] }, { onSent() {}, onHead: fail, onChunk: fail, onEnd: fail, onError });
  sinks[1]!.onHead(200, {});
  sinks[1]!.onChunk(Buffer.alloc(FAN_OUT_BYTES_MAX + 1));
  expect(errors).toEqual(["too_large"]);
  expect(aborted.toSorted()).toEqual([0, 1]);
});
