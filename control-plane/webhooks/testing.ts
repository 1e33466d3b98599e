/** Receivers of webhooks for tests: real servers that answer as they are told and remember what came. */

import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";
import type { Database } from "../db/database.ts";
import { emitWebhookEvents, type NewWebhookEvent } from "../store/webhook_event.ts";

export interface Received {
  readonly path: string;
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export type Answer = (response: ServerResponse, received: Received) => void;

export interface Receiver {
  readonly port: number;
  /** Ends with a slash. */
  readonly url: string;
  readonly received: Received[];
  /** How many requests were open at once, at most. */
  readonly mostOpen: () => number;
  answer: Answer;
  close(): Promise<void>;
}

export const answerWith =
  (status: number, headers: Record<string, string> = {}): Answer =>
  (response) => {
    response.writeHead(status, headers).end();
  };

/** Whoever asks is kept waiting until the connection ends. */
export const NO_ANSWER: Answer = () => {};

export async function startReceiver(answer: Answer = answerWith(204)): Promise<Receiver> {
  const received: Received[] = [];
  let open = 0;
  let most = 0;
  const server = createServer((request, response) => {
    most = Math.max(most, (open += 1));
    response.on("close", () => (open -= 1));
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (chunk: string) => (body += chunk));
    request.on("end", () => {
      const one = { path: request.url ?? "", method: request.method ?? "", headers: request.headers, body };
      received.push(one);
      receiver.answer(response, one);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const receiver: Receiver = {
    port,
    url: `http://127.0.0.1:${port}/`,
    received,
    mostOpen: () => most,
    answer,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return receiver;
}

export const idOf = ({ headers }: Received): string => String(headers["webhook-id"]);

/** The body, if the official library verifies it; throws otherwise. */
export function verified({ body, headers }: Received, secret: string): Record<string, unknown> {
  return new Webhook(secret).verify(body, headers as Record<string, string>) as Record<string, unknown>;
}

/** Whether the signature fits, whatever the clock says. */
export function isSignedBy({ body, headers }: Received, secret: string): boolean {
  const at = new Date(Number(headers["webhook-timestamp"]) * 1000);
  const signature = new Webhook(secret).sign(String(headers["webhook-id"]), at, body);
  return String(headers["webhook-signature"]).split(" ").includes(signature);
}

export type EventInit = Pick<NewWebhookEvent, "id" | "merchantId"> & Partial<NewWebhookEvent>;

/** Emits events as services do. */
export function emit(db: Database, now: number, events: readonly EventInit[]): Promise<void> {
  const whole = events.map((event) => ({
    type: "wallet.low" as const,
    veId: "ve_a",
    sessionId: "",
    data: { ve_id: "ve_a", id: event.id },
    ...event,
  }));
  return db.tx((tx) => emitWebhookEvents(tx, now, whole));
}
