/** Both sides of the transport seam in memory: what is measured over them is the pipeline alone. */

import { streamWhole } from "../../data-plane/testing_fakes.ts";
import type {
  BodySink,
  BodyStreamSink,
  Exchange,
  Flow,
  OutboundCall,
  OutboundRequest,
  OutboundSink,
  Pipeline,
  Upstream,
} from "../../data-plane/transport.ts";

/** What the fake upstream answers. */
export interface Answer {
  readonly headers: Readonly<Record<string, string>>;
  /** Whole, or one for each read of a socket. */
  readonly chunks: readonly Buffer[];
}

class MemoryExchange implements Exchange {
  readonly method = "POST";
  readonly target = "/v1/chat/completions";
  readonly body: Buffer;
  /** Who waits for the body. */
  reader: BodySink | null = null;
  status = 0;
  private readonly headers: Readonly<Record<string, string>>;
  private readonly onEnd: (exchange: MemoryExchange) => void;

  constructor(headers: Readonly<Record<string, string>>, body: Buffer, onEnd: (exchange: MemoryExchange) => void) {
    this.headers = headers;
    this.body = body;
    this.onEnd = onEnd;
  }
  header(name: string): string {
    return this.headers[name] ?? "";
  }
  setSink(): void {}
  readBody(_: number, reader: BodySink): void {
    this.reader = reader;
  }
  streamBody(bytesMax: number, sink: BodyStreamSink): Flow {
    return streamWhole(this, bytesMax, sink);
  }
  writeHead(status: number): void {
    this.status = status;
  }
  write(): boolean {
    return true;
  }
  end(): void {
    this.onEnd(this);
  }
  destroy(): void {
    this.onEnd(this);
  }
}

const CALL: OutboundCall = { abort() {}, pause() {}, resume() {} };

/** Keeps the calls of a turn until the driver answers them. */
export class MemoryUpstream implements Upstream {
  calls: OutboundSink[] = [];
  sent = 0;
  send(_: OutboundRequest, sink: OutboundSink): OutboundCall {
    this.calls.push(sink);
    this.sent++;
    return CALL;
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Does what every request needs and nothing else: what the driver itself costs. */
export function passThrough(upstream: MemoryUpstream): Pick<Pipeline, "handle"> {
  return {
    handle(exchange) {
      exchange.readBody(0, {
        onBody: () => {
          upstream.send(
            { origin: "", path: "", method: "POST", headers: [], body: null },
            {
              onSent() {},
              onHead: (status) => exchange.writeHead(status, []),
              onChunk: (chunk) => void exchange.write(chunk),
              onEnd: () => exchange.end(),
              onError() {},
            },
          );
        },
        onBodyFailure() {},
      });
    },
  };
}

export interface MemoryRequest {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Sends `count` requests through, `perTurn` in each turn of the event loop, as a busy socket server would. */
export async function drive(
  pipeline: Pick<Pipeline, "handle">,
  upstream: MemoryUpstream,
  requests: readonly MemoryRequest[],
  answer: Answer,
  count: number,
  perTurn: number,
): Promise<void> {
  let ended = 0;
  let failed = 0;
  const onEnd = (exchange: MemoryExchange): void => {
    ended++;
    if (exchange.status !== 200) failed = exchange.status;
  };
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  for (let begun = 0; begun < count; begun += perTurn) {
    const exchanges: MemoryExchange[] = [];
    for (let i = begun; i < begun + perTurn; i++) {
      const { headers, body } = requests[i % requests.length]!;
      const exchange = new MemoryExchange(headers, body, onEnd);
      exchanges.push(exchange);
      pipeline.handle(exchange);
    }
    for (const exchange of exchanges) exchange.reader!.onBody(exchange.body);
    await turn();
    const calls = upstream.calls;
    upstream.calls = [];
    for (const sink of calls) {
      sink.onSent();
      sink.onHead(200, answer.headers);
      for (const chunk of answer.chunks) sink.onChunk(chunk);
      sink.onEnd();
    }
    await turn();
  }
  // A journal answers when the write of its turn is done.
  for (let turns = 0; ended < count && turns < 10_000; turns++) await turn();
  if (failed !== 0 || ended < count)
    throw new Error(`${count - ended} of ${count} requests did not end; a status was ${failed}`);
}
